// Owners of the C handles this program holds.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "ggml.h"
#include "gguf.h"

namespace ladder {

struct GgufFree { void operator()(gguf_context * ctx) const { gguf_free(ctx); } };
struct GgmlFree { void operator()(ggml_context * ctx) const { ggml_free(ctx); } };
using GgufOwner = std::unique_ptr<gguf_context, GgufFree>;
using GgmlOwner = std::unique_ptr<ggml_context, GgmlFree>;

class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd && other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd & operator=(Fd && other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    int get() const { return fd_; }

private:
    int fd_ = -1;
};

// Whole reads and writes; short ones are continued, errors throw a user Failure that names `path`.
void read_at(const Fd & fd, void * data, size_t size, uint64_t offset, const std::string & path);
void write_at(const Fd & fd, const void * data, size_t size, uint64_t offset, const std::string & path);

std::string read_text(const std::string & path);
// Staged, synced, renamed.
void write_text_whole(const std::string & path, const std::string & text);
void sync_folder(const std::string & path);

}  // namespace ladder
