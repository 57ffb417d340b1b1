// The one pass over the input: reads each chunk of rows once, quantizes it to every type that some variant wants of
// it, writes the bytes to every file that holds them, and hashes them for tensors and files, all by the same threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lanes.h"
#include "source.h"
#include "work.h"

namespace ladder {

// Seconds summed over the threads.
struct PassTimes {
    double read = 0, widen = 0, quantize = 0, write = 0, hash = 0, idle = 0;
};

struct PassLimits {
    int      threads;
    uint64_t memory;  // bytes of buffers, all threads together
};

class Pass {
public:
    // Throws a user Failure when `limits.memory` does not hold one row of the widest tensor.
    Pass(const Source & source, std::vector<TensorWork> & work, std::vector<OpenFile> & files, PassLimits limits,
         TensorEnded tensor_ended);

    // Writes tensor data and sets all digests. A variant that llama.cpp's validation fails gets its `failure` set;
    // anything else that goes wrong is thrown. Leaves headers to the caller.
    void run();

    uint64_t bytes_total() const { return bytes_total_; }
    uint64_t bytes_written() const { return bytes_written_; }
    const PassTimes & times() const { return times_; }

private:
    struct Slot {
        std::vector<uint8_t> buffer;
        std::vector<Piece>   pieces;  // one for each target
        bool                 ready = false;
        int                  unfed = 0;
    };

    void choose_sizes(PassLimits limits);
    void worker();
    bool hash_some(std::unique_lock<std::mutex> & lock, PassTimes & times);
    bool compute_some(std::unique_lock<std::mutex> & lock, PassTimes & times, std::vector<float> & wide);
    void compute(size_t index, Slot & slot, PassTimes & times, std::vector<float> & wide);
    void quantize(const Chunk & chunk, Target & target, const float * rows, Piece piece);
    void write(const Chunk & chunk, const Target & target, Piece piece);
    void read_back(const Chunk & chunk, const Target & target, Piece piece);
    const float * read_rows(const Chunk & chunk, Piece raw, PassTimes & times, std::vector<float> & wide);
    void fail_variants(Target & target, const std::string & why);
    Piece piece_for(int lane) const;
    void finish_lane(int lane);
    void look_ahead(size_t index) const;
    Slot & slot(size_t index) { return slots_[index % slots_.size()]; }
    const Slot & slot(size_t index) const { return slots_[index % slots_.size()]; }

    const Source &            source_;
    std::vector<TensorWork> & work_;
    std::vector<OpenFile> &   files_;
    int                       threads_;
    std::vector<Chunk>        chunks_;
    std::vector<Slot>         slots_;
    std::unique_ptr<Lanes>    lanes_;

    std::mutex              mutex_;
    std::condition_variable changed_;
    size_t                  next_ = 0;  // chunk to be computed next
    size_t                  base_ = 0;  // first chunk whose slot is in use
    std::exception_ptr      error_;
    PassTimes               times_;
    uint64_t                bytes_total_ = 0;
    std::atomic<uint64_t>   bytes_written_{0};
};

}  // namespace ladder
