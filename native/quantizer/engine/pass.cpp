#include "pass.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "failure.h"
#include "quantmint_quant.h"
#include "rows.h"

namespace ladder {

namespace {

// Large enough that locks and system calls do not show, small enough that a chunk's floats stay in the second-level cache.
constexpr int64_t chunk_weights = 1 << 17;
// Chunks that may be computed or wait for their hash, for each thread.
constexpr size_t slots_per_thread = 4;
constexpr uint64_t look_ahead_bytes = uint64_t(64) << 20;

using Clock = std::chrono::steady_clock;

// Adds the time since it was made, or since the last lap, to a sum.
class Watch {
public:
    void lap(double & sum) {
        const Clock::time_point now = Clock::now();
        sum += std::chrono::duration<double>(now - start_).count();
        start_ = now;
    }

private:
    Clock::time_point start_ = Clock::now();
};

void add(PassTimes & sum, const PassTimes & part) {
    sum.read += part.read;
    sum.widen += part.widen;
    sum.quantize += part.quantize;
    sum.write += part.write;
    sum.hash += part.hash;
    sum.idle += part.idle;
}

}  // namespace

Pass::Pass(const Source & source, std::vector<TensorWork> & work, std::vector<OpenFile> & files, PassLimits limits,
           TensorEnded tensor_ended)
    : source_(source), work_(work), files_(files), threads_(limits.threads) {
    choose_sizes(limits);
    lanes_ = std::make_unique<Lanes>(work_, chunks_, files_, std::move(tensor_ended));
    for (const OpenFile & file : files_) {
        bytes_total_ += file.out->size - file.out->header.size();
    }
}

void Pass::choose_sizes(PassLimits limits) {
    for (int64_t weights = chunk_weights;; weights /= 2) {
        chunks_ = cut_chunks(work_, weights);
        uint64_t most = 1;
        int64_t floats = 0;
        bool cut_more = false;
        for (const Chunk & chunk : chunks_) {
            most = std::max(most, chunk_bytes(work_[size_t(chunk.tensor)], chunk.rows));
            floats = std::max(floats, chunk.rows * work_[size_t(chunk.tensor)].source->ne[0]);
            cut_more |= chunk.rows > 1;
        }
        const uint64_t wide = uint64_t(floats) * sizeof(float);
        const uint64_t fit = limits.memory / (most + wide / slots_per_thread + 1);
        if (fit >= slots_per_thread * size_t(threads_) || (fit >= 1 && !cut_more)) {
            slots_.resize(std::min(size_t(fit), slots_per_thread * size_t(threads_)));
            // Each thread has floats of its own: fewer slots than threads would not bound them.
            threads_ = int(std::min(size_t(threads_), slots_.size()));
            return;
        }
        if (!cut_more) {
            throw Failure(Blame::user, "the buffers need " + std::to_string(most + wide) + " bytes for the widest row; --memory leaves " +
                          std::to_string(limits.memory));
        }
    }
}

void Pass::run() {
    for (const TensorWork & work : work_) {
        for (const Target & target : work.targets) {
            ggml_quantize_init(target.type);
        }
    }
    for (size_t k = 0; k < chunks_.size() && k < 8; ++k) {
        look_ahead(k);
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_; ++i) {
        threads.emplace_back([this] { worker(); });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    if (error_) {
        std::rethrow_exception(error_);
    }
}

void Pass::worker() {
    PassTimes times;
    std::vector<float> wide;
    std::unique_lock<std::mutex> lock(mutex_);
    try {
        Watch watch;
        while (!error_ && base_ < chunks_.size()) {
            if (!hash_some(lock, times) && !compute_some(lock, times, wide)) {
                watch = Watch();
                changed_.wait(lock);
                watch.lap(times.idle);
            }
        }
    } catch (...) {
        if (!lock.owns_lock()) {
            lock.lock();
        }
        error_ = error_ ? error_ : std::current_exception();
    }
    add(times_, times);
    changed_.notify_all();
}

Piece Pass::piece_for(int lane) const {
    return slot(lanes_->next_chunk(lane)).pieces[size_t(lanes_->target(lane))];
}

bool Pass::hash_some(std::unique_lock<std::mutex> & lock, PassTimes & times) {
    const int a = lanes_->take_queued();
    if (a < 0) {
        return false;
    }
    const int b = lanes_->take_queued();
    const Piece pa = piece_for(a);
    const Piece pb = b < 0 ? Piece{nullptr, 0} : piece_for(b);
    lock.unlock();
    Watch watch;
    lanes_->feed(a, pa, b, pb);
    watch.lap(times.hash);
    lock.lock();
    finish_lane(a);
    if (b >= 0) {
        finish_lane(b);
    }
    changed_.notify_all();
    return true;
}

void Pass::finish_lane(int lane) {
    const size_t fed = lanes_->next_chunk(lane);
    lanes_->fed(lane, fed + 1 < next_ && slot(fed + 1).ready);
    slot(fed).unfed -= 1;
    while (base_ < next_ && slot(base_).ready && slot(base_).unfed == 0) {
        slot(base_).ready = false;
        ++base_;
    }
}

bool Pass::compute_some(std::unique_lock<std::mutex> & lock, PassTimes & times, std::vector<float> & wide) {
    if (next_ >= chunks_.size() || next_ - base_ >= slots_.size()) {
        return false;
    }
    const size_t index = next_++;
    Slot & mine = slot(index);
    lock.unlock();
    look_ahead(index);
    compute(index, mine, times, wide);
    lock.lock();
    mine.unfed = lanes_->wanted(chunks_[index].tensor);
    mine.ready = true;
    lanes_->chunk_ready(index);
    changed_.notify_all();
    return true;
}

// The system reads on while this chunk is computed: asks for a stretch whenever one begins.
void Pass::look_ahead(size_t index) const {
    const Chunk & here = chunks_[index];
    const SourceTensor & tensor = *work_[size_t(here.tensor)].source;
    const size_t chunk_size = std::max<size_t>(1, ggml_row_size(tensor.type, tensor.ne[0]) * size_t(here.rows));
    const size_t ahead = index + size_t(look_ahead_bytes) / chunk_size;
    if (ahead < chunks_.size()) {
        const Chunk & there = chunks_[ahead];
        const SourceTensor & wanted = *work_[size_t(there.tensor)].source;
        const size_t row = ggml_row_size(wanted.type, wanted.ne[0]);
        source_.will_need(wanted, uint64_t(there.row) * row, row * size_t(there.rows));
    }
}

// The chunk's rows as floats, or no floats when all that is wanted is a copy or done already.
const float * Pass::read_rows(const Chunk & chunk, Piece raw, PassTimes & times, std::vector<float> & wide) {
    const TensorWork & work = work_[size_t(chunk.tensor)];
    const SourceTensor & tensor = *work.source;
    const auto is_done = [](const Target & target) { return target.done; };
    const auto is_easy = [&](const Target & target) { return target.done || work.copies(target); };
    if (std::all_of(work.targets.begin(), work.targets.end(), is_done)) {
        return nullptr;
    }
    Watch watch;
    uint8_t * bytes = const_cast<uint8_t *>(raw.data);  // the slot's own buffer
    source_.read(tensor, ggml_row_size(tensor.type, tensor.ne[0]) * uint64_t(chunk.row), raw.size, bytes);
    watch.lap(times.read);
    if (!valid_rows(tensor.type, raw.data, raw.size)) {
        throw Failure(Blame::source, "tensor '" + tensor.name + "' has invalid data (infinities or NaNs): llama-quantize refuses it too");
    }
    const float * floats = reinterpret_cast<const float *>(raw.data);
    if (tensor.type != GGML_TYPE_F32 && !std::all_of(work.targets.begin(), work.targets.end(), is_easy)) {
        wide.resize(std::max(wide.size(), size_t(chunk.rows * tensor.ne[0])));
        widen(tensor.type, raw.data, wide.data(), chunk.rows * tensor.ne[0]);
        floats = wide.data();
    }
    watch.lap(times.widen);
    return floats;
}

void Pass::compute(size_t index, Slot & mine, PassTimes & times, std::vector<float> & wide) {
    const Chunk & chunk = chunks_[index];
    TensorWork & work = work_[size_t(chunk.tensor)];
    const SourceTensor & tensor = *work.source;
    const uint64_t needed = chunk_bytes(work, chunk.rows);
    if (mine.buffer.size() < needed) {
        mine.buffer.resize(needed);
    }
    const Piece raw = {mine.buffer.data(), ggml_row_size(tensor.type, tensor.ne[0]) * size_t(chunk.rows)};
    const float * floats = read_rows(chunk, raw, times, wide);
    mine.pieces.clear();
    size_t at = GGML_PAD(raw.size, 64);
    for (Target & target : work.targets) {
        Piece piece = raw;
        if (!work.copies(target)) {
            piece = {mine.buffer.data() + at, ggml_row_size(target.type, tensor.ne[0]) * size_t(chunk.rows)};
            at += GGML_PAD(piece.size, 64);
        }
        Watch watch;
        if (target.done) {
            read_back(chunk, target, piece);
            watch.lap(times.read);
        } else {
            if (!work.copies(target)) {
                quantize(chunk, target, floats, piece);
                watch.lap(times.quantize);
            }
            write(chunk, target, piece);
            watch.lap(times.write);
        }
        mine.pieces.push_back(piece);
    }
}

void Pass::quantize(const Chunk & chunk, Target & target, const float * rows, Piece piece) {
    const TensorWork & work = work_[size_t(chunk.tensor)];
    const SourceTensor & tensor = *work.source;
    const float * importance = work.importance == nullptr ? nullptr : work.importance + chunk.row / tensor.ne[1] * tensor.ne[0];
    uint8_t * bytes = const_cast<uint8_t *>(piece.data);  // the slot's own buffer
    const size_t made = quantmint_quantize_rows(target.type, rows, bytes, chunk.rows, tensor.ne[0], importance);
    if (made != piece.size) {
        throw Failure(Blame::bug, std::string("quantizing to ") + ggml_type_name(target.type) + " gave another number of bytes than planned");
    }
    if (!valid_rows(target.type, bytes, piece.size)) {
        fail_variants(target, "quantized data validation failed: tensor '" + tensor.name + "' does not fit " + ggml_type_name(target.type));
    }
}

void Pass::fail_variants(Target & target, const std::string & why) {
    const std::lock_guard<std::mutex> guard(mutex_);
    target.valid = false;
    for (const Sink & sink : target.sinks) {
        std::string & failure = files_[size_t(sink.file)].variant->failure;
        failure = failure.empty() ? why : failure;
    }
}

void Pass::write(const Chunk & chunk, const Target & target, Piece piece) {
    const SourceTensor & tensor = *work_[size_t(chunk.tensor)].source;
    const uint64_t begin = ggml_row_size(target.type, tensor.ne[0]) * uint64_t(chunk.row);
    for (const Sink & sink : target.sinks) {
        const OpenFile & file = files_[size_t(sink.file)];
        write_at(file.fd, piece.data, piece.size, sink.offset + begin, file.path);
        bytes_written_ += piece.size;
    }
}

void Pass::read_back(const Chunk & chunk, const Target & target, Piece piece) {
    const SourceTensor & tensor = *work_[size_t(chunk.tensor)].source;
    const OpenFile & file = files_[size_t(target.sinks[0].file)];
    const uint64_t begin = ggml_row_size(target.type, tensor.ne[0]) * uint64_t(chunk.row);
    uint8_t * bytes = const_cast<uint8_t *>(piece.data);  // the slot's own buffer
    read_at(file.fd, bytes, piece.size, target.sinks[0].offset + begin, file.path);
    bytes_written_ += piece.size * target.sinks.size();
}

}  // namespace ladder
