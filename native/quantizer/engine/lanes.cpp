#include "lanes.h"

#include <algorithm>

#include "failure.h"

namespace ladder {

Lanes::Lanes(std::vector<TensorWork> & work, const std::vector<Chunk> & chunks, std::vector<OpenFile> & files,
             TensorEnded tensor_ended)
    : work_(work), chunks_(chunks), files_(files), by_tensor_(work.size()), tensor_ended_(std::move(tensor_ended)) {
    std::vector<size_t> begin(work.size() + 1, chunks.size());
    for (size_t k = chunks.size(); k-- > 0;) {
        begin[size_t(chunks[k].tensor)] = k;
    }
    for (size_t t = work.size(); t-- > 0;) {
        begin[t] = std::min(begin[t], begin[t + 1]);
    }
    std::vector<std::pair<int, int>> span(files.size(), {-1, -1});  // first and last tensor of each file
    for (size_t t = 0; t < work.size(); ++t) {
        for (const Target & target : work[t].targets) {
            for (const Sink & sink : target.sinks) {
                auto & [first, last] = span[size_t(sink.file)];
                if (first >= 0 && last + 1 != int(t)) {
                    throw Failure(Blame::bug, "the tensors of a file do not follow one another in the pass");
                }
                first = first < 0 ? int(t) : first;
                last = int(t);
            }
        }
    }
    for (size_t f = 0; f < files.size(); ++f) {
        const auto [first, last] = span[f];
        if (first < 0) {
            files[f].sha256 = sha256_hex(files[f].out->header);
        }
        add_lane(int(f), -1, -1, first < 0 ? 0 : begin[size_t(first)], first < 0 ? 0 : begin[size_t(last) + 1]);
    }
    for (size_t t = 0; t < work.size(); ++t) {
        for (size_t y = 0; y < work[t].targets.size(); ++y) {
            by_tensor_[t].push_back({int(lanes_.size()), int(y)});
            add_lane(-1, int(t), int(y), begin[t], begin[t + 1]);
            for (const Sink & sink : work[t].targets[y].sinks) {
                by_tensor_[t].push_back({sink.file, int(y)});
            }
        }
    }
}

void Lanes::add_lane(int file, int tensor, int target, size_t begin, size_t end) {
    lanes_.push_back({file, tensor, target, begin, begin, end, false, {}});
}

void Lanes::chunk_ready(size_t chunk) {
    for (const Wish & wish : by_tensor_[size_t(chunks_[chunk].tensor)]) {
        Lane & lane = lanes_[size_t(wish.lane)];
        if (lane.next == chunk && !lane.queued) {
            lane.queued = true;
            queue_.push_back(wish.lane);
        }
    }
}

int Lanes::take_queued() {
    if (queue_.empty()) {
        return -1;
    }
    const int lane = queue_.front();
    queue_.pop_front();
    return lane;
}

int Lanes::target(int lane) const {
    const Lane & asked = lanes_[size_t(lane)];
    if (asked.file < 0) {
        return asked.target;
    }
    for (const Wish & wish : by_tensor_[size_t(chunks_[asked.next].tensor)]) {
        if (wish.lane == lane) {
            return wish.target;
        }
    }
    throw Failure(Blame::bug, "a file waits for a tensor that it does not hold");
}

void Lanes::fed(int lane, bool next_is_ready) {
    Lane & moved = lanes_[size_t(lane)];
    ++moved.next;
    moved.queued = next_is_ready && moved.next < moved.end;
    if (moved.queued) {
        queue_.push_back(lane);
    }
}

void Lanes::before(Lane & lane) {
    if (lane.file >= 0 && lane.next == lane.begin) {
        const std::string & header = files_[size_t(lane.file)].out->header;
        lane.digest.update(header.data(), header.size());
    }
}

void Lanes::after(Lane & lane) {
    static const uint8_t zeros[GGUF_DEFAULT_ALIGNMENT] = {};
    const Chunk & chunk = chunks_[lane.next];
    const TensorWork & work = work_[size_t(chunk.tensor)];
    const bool tensor_ends = chunk.row + chunk.rows == work.source->rows();
    if (lane.file >= 0 && tensor_ends) {
        const size_t size = ggml_row_size(work.targets[size_t(target(int(&lane - lanes_.data())))].type, work.source->ne[0]) *
                            size_t(work.source->rows());
        lane.digest.update(zeros, GGML_PAD(size, GGUF_DEFAULT_ALIGNMENT) - size);
    }
    if (lane.next + 1 == lane.end) {
        if (lane.file >= 0) {
            files_[size_t(lane.file)].sha256 = lane.digest.finish();
        } else {
            TensorWork & ended = work_[size_t(lane.tensor)];
            ended.targets[size_t(lane.target)].sha256 = lane.digest.finish();
            tensor_ended_(ended, ended.targets[size_t(lane.target)]);
        }
    }
}

void Lanes::feed(int a, Piece pa, int b, Piece pb) {
    Lane & lane_a = lanes_[size_t(a)];
    before(lane_a);
    if (b < 0) {
        lane_a.digest.update(pa.data, pa.size);
        return after(lane_a);
    }
    Lane & lane_b = lanes_[size_t(b)];
    before(lane_b);
    update_pair(lane_a.digest, pa.data, pa.size, lane_b.digest, pb.data, pb.size);
    after(lane_a);
    after(lane_b);
}

}  // namespace ladder
