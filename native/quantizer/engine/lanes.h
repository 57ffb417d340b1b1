// The digests that the pass computes while the bytes are still in the processor's cache.
//
// A lane is one running SHA-256: of a whole file, or of one tensor's data in one type. Its chunks must be fed in order,
// while the chunks themselves are computed in any order; so each lane waits in its turn. The caller holds the
// pass's lock for every function here except `feed`.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "sha256.h"
#include "work.h"

namespace ladder {

// The finished bytes of a chunk, one piece for each target of its tensor.
struct Piece {
    const uint8_t * data;
    size_t          size;
};

using TensorEnded = std::function<void(const TensorWork & work, const Target & target)>;

class Lanes {
public:
    // `tensor_ended` is called, without the lock, when all of a tensor's bytes of one type are written and hashed.
    Lanes(std::vector<TensorWork> & work, const std::vector<Chunk> & chunks, std::vector<OpenFile> & files,
          TensorEnded tensor_ended);

    // How many lanes want a chunk of this tensor.
    int wanted(int tensor) const { return int(by_tensor_[size_t(tensor)].size()); }
    // Queues the lanes whose turn it is now that `chunk` is computed.
    void chunk_ready(size_t chunk);
    bool any_queued() const { return !queue_.empty(); }
    int  take_queued();  // -1 when there is none
    size_t next_chunk(int lane) const { return lanes_[size_t(lane)].next; }
    int    target(int lane) const;
    // Moves the lane behind its chunk. `next_is_ready`: the chunk after it is computed already.
    void fed(int lane, bool next_is_ready);
    bool ended(int lane) const { return lanes_[size_t(lane)].next == lanes_[size_t(lane)].end; }

    // Without the lock: hashes one or two lanes' pieces (`b` may be -1), with headers, padding and the final digest.
    void feed(int a, Piece pa, int b, Piece pb);

private:
    struct Lane {
        int    file;    // index of the open file, or -1: a tensor's lane
        int    tensor;  // of a tensor's lane
        int    target;
        size_t begin;   // its first chunk
        size_t next;    // chunk that it waits for
        size_t end;
        bool   queued = false;
        Sha256 digest;
    };
    struct Wish {
        int lane;
        int target;
    };

    void add_lane(int file, int tensor, int target, size_t begin, size_t end);
    void before(Lane & lane);
    void after(Lane & lane);

    std::vector<TensorWork> &       work_;
    const std::vector<Chunk> &      chunks_;
    std::vector<OpenFile> &         files_;
    std::vector<Lane>               lanes_;
    std::vector<std::vector<Wish>>  by_tensor_;
    std::deque<int>                 queue_;
    TensorEnded                     tensor_ended_;
};

}  // namespace ladder
