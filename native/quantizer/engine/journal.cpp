#include "journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "failure.h"
#include "parallel.h"
#include "sha256.h"

namespace ladder {

namespace {

std::string range_sha256(const OpenFile & file, uint64_t offset, uint64_t size) {
    Sha256 digest;
    std::vector<char> piece(size_t(std::min<uint64_t>(size, 1 << 20)));
    while (size > 0) {
        const size_t step = size_t(std::min<uint64_t>(size, piece.size()));
        read_at(file.fd, piece.data(), step, offset, file.path);
        digest.update(piece.data(), step);
        offset += step;
        size -= step;
    }
    return digest.finish();
}

uint64_t target_size(const TensorWork & work, const Target & target) {
    return ggml_row_size(target.type, work.source->ne[0]) * uint64_t(work.source->rows());
}

std::string tensor_line(const TensorWork & work, const Target & target) {
    return std::string("tensor ") + ggml_type_name(target.type) + " " + target.sha256 + " " + work.source->name + "\n";
}

}  // namespace

void Journal::load() {
    if (::access(path_.c_str(), R_OK) != 0) {
        return;
    }
    const std::string text = read_text(path_);
    std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
    std::string line;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        std::string what, first, second, name;
        words >> what >> first;
        if (what == "tensor") {
            words >> second;
        }
        std::getline(words.ignore(1), name);
        if (what == "tensor") {
            digests_[{name, first}] = second;
        } else if (what == "file") {
            keys_[name] = first;
        }
    }
}

bool Journal::was_making(const std::string & name, const std::string & key) const {
    const auto found = keys_.find(name);
    return found != keys_.end() && found->second == key;
}

void Journal::trust(std::vector<TensorWork> & work, const std::vector<OpenFile> & files, int threads) const {
    struct Candidate {
        TensorWork *        work;
        Target *            target;
        const std::string * digest;
    };
    std::vector<Candidate> candidates;
    for (TensorWork & item : work) {
        for (Target & target : item.targets) {
            const auto known = digests_.find({item.source->name, ggml_type_name(target.type)});
            const bool resumed = std::all_of(target.sinks.begin(), target.sinks.end(),
                                             [&](const Sink & sink) { return files[size_t(sink.file)].resumed; });
            if (known != digests_.end() && resumed) {
                candidates.push_back({&item, &target, &known->second});
            }
        }
    }
    for_each_index(candidates.size(), threads, [&](size_t i) {
        const Candidate & one = candidates[i];
        const uint64_t size = target_size(*one.work, *one.target);
        one.target->done = std::all_of(one.target->sinks.begin(), one.target->sinks.end(), [&](const Sink & sink) {
            return range_sha256(files[size_t(sink.file)], sink.offset, size) == *one.digest;
        });
        one.target->sha256 = one.target->done ? *one.digest : "";
    });
}

void Journal::begin(const std::vector<TensorWork> & work, const std::vector<OpenFile> & files) {
    std::string text;
    for (const OpenFile & file : files) {
        text += "file " + file.key + " " + file.out->name + "\n";
    }
    for (const TensorWork & item : work) {
        for (const Target & target : item.targets) {
            text += target.done ? tensor_line(item, target) : "";
        }
    }
    write_text_whole(path_, text);
    out_ = Fd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (out_.get() < 0) {
        fail_errno("cannot open " + path_);
    }
}

void Journal::add(const TensorWork & work, const Target & target) {
    const std::string line = tensor_line(work, target);
    const std::lock_guard<std::mutex> guard(mutex_);
    // A line that is not written whole costs a later run some work, no more.
    if (::write(out_.get(), line.data(), line.size()) < 0) {
        out_ = Fd();
    }
}

void Journal::remove() {
    ::unlink(path_.c_str());
}

}  // namespace ladder
