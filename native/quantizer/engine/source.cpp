#include "source.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "failure.h"
#include "llama.h"
#include "sha256.h"

namespace ladder {

namespace {

std::string stat_identity(int fd, const std::string & path) {
    struct stat info;
    if (::fstat(fd, &info) != 0) {
        fail_errno("cannot stat " + path);
    }
    return std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
           std::to_string(info.st_mtim.tv_nsec) + " " + std::to_string(info.st_ino);
}

uint16_t split_value(const gguf_context * gguf, const char * key) {
    const int64_t id = gguf_find_key(gguf, key);
    return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(gguf, id) : 0;
}

std::vector<std::string> part_paths(const std::string & first, uint16_t count) {
    std::vector<char> text(first.size() + 64);
    if (llama_split_prefix(text.data(), text.size(), first.c_str(), 0, count) <= 0) {
        char wanted[64];
        llama_split_path(wanted, sizeof wanted, "NAME", 0, count);
        throw Failure(Blame::user, first + " is the first of " + std::to_string(count) + " parts, so it must be named " + wanted);
    }
    const std::string prefix = text.data();
    std::vector<std::string> paths;
    for (uint16_t i = 0; i < count; ++i) {
        llama_split_path(text.data(), text.size(), prefix.c_str(), i, count);
        paths.emplace_back(text.data());
    }
    return paths;
}

}  // namespace

Source::Source(const std::string & path) {
    open_part(path);
    const uint16_t count = split_value(files_[0].gguf.get(), "split.count");
    if (count > 1) {
        if (split_value(files_[0].gguf.get(), "split.no") != 0) {
            throw Failure(Blame::user, path + " is a later part of a split model; give its first part (...-00001-of-...)");
        }
        const std::vector<std::string> paths = part_paths(path, count);
        for (uint16_t i = 1; i < count; ++i) {
            open_part(paths[i]);
        }
    }
}

void Source::open_part(const std::string & path) {
    SourceFile part;
    part.path = path;
    part.fd = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (part.fd.get() < 0) {
        fail_errno("cannot open " + path);
    }
    ggml_context * shapes = nullptr;
    part.gguf.reset(gguf_init_from_file(path.c_str(), gguf_init_params{true, &shapes}));
    const GgmlOwner shapes_owner(shapes);
    if (!part.gguf) {
        throw Failure(Blame::source, path + " is not a GGUF file that ggml can read");
    }
    const uint64_t data = gguf_get_data_offset(part.gguf.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(part.gguf.get()); ++i) {
        SourceTensor tensor{};
        tensor.name   = gguf_get_tensor_name(part.gguf.get(), i);
        tensor.type   = gguf_get_tensor_type(part.gguf.get(), i);
        tensor.file   = int(files_.size());
        tensor.offset = data + gguf_get_tensor_offset(part.gguf.get(), i);
        tensor.size   = gguf_get_tensor_size(part.gguf.get(), i);
        std::copy_n(gguf_get_tensor_ne(part.gguf.get(), i), GGML_MAX_DIMS, tensor.ne);
        if (!by_name_.emplace(tensor.name, int(tensors_.size())).second) {
            throw Failure(Blame::source, path + " holds tensor " + tensor.name + " a second time");
        }
        tensors_.push_back(tensor);
    }
    std::string header(data, '\0');
    read_at(part.fd, header.data(), header.size(), 0, path);
    part.identity = stat_identity(part.fd.get(), path) + " " + sha256_hex(header);
    files_.push_back(std::move(part));
}

int Source::find(const std::string & name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? -1 : found->second;
}

void Source::read(const SourceTensor & tensor, uint64_t begin, size_t size, void * data) const {
    const SourceFile & part = files_[size_t(tensor.file)];
    read_at(part.fd, data, size, tensor.offset + begin, part.path);
}

void Source::will_need(const SourceTensor & tensor, uint64_t begin, size_t size) const {
    ::posix_fadvise(files_[size_t(tensor.file)].fd.get(), off_t(tensor.offset + begin), off_t(size), POSIX_FADV_WILLNEED);
}

void Source::check_unchanged() const {
    for (const SourceFile & part : files_) {
        if (part.identity.rfind(stat_identity(part.fd.get(), part.path) + " ", 0) != 0) {
            throw Failure(Blame::user, part.path + " changed while it was read; run the command again on a file that stays as it is");
        }
    }
}

}  // namespace ladder
