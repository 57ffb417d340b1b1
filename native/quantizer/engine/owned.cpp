#include "owned.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "failure.h"

namespace ladder {

void read_at(const Fd & fd, void * data, size_t size, uint64_t offset, const std::string & path) {
    char * at = static_cast<char *>(data);
    while (size > 0) {
        const ssize_t got = ::pread(fd.get(), at, size, off_t(offset));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            fail_errno("cannot read " + path);
        }
        if (got == 0) {
            throw Failure(Blame::source, path + " ends before the tensor data that its header promises: it is truncated");
        }
        at += got;
        offset += uint64_t(got);
        size -= size_t(got);
    }
}

void write_at(const Fd & fd, const void * data, size_t size, uint64_t offset, const std::string & path) {
    const char * at = static_cast<const char *>(data);
    while (size > 0) {
        const ssize_t put = ::pwrite(fd.get(), at, size, off_t(offset));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            fail_errno("cannot write " + path);
        }
        at += put;
        offset += uint64_t(put);
        size -= size_t(put);
    }
}

std::string read_text(const std::string & path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) {
        fail_errno("cannot open " + path);
    }
    std::string text;
    char piece[65536];
    for (;;) {
        const ssize_t got = ::read(fd.get(), piece, sizeof piece);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            fail_errno("cannot read " + path);
        }
        if (got == 0) {
            return text;
        }
        text.append(piece, size_t(got));
    }
}

void write_text_whole(const std::string & path, const std::string & text) {
    const std::string staged = path + ".part";
    {
        const Fd fd(::open(staged.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
        if (fd.get() < 0) {
            fail_errno("cannot create " + staged);
        }
        write_at(fd, text.data(), text.size(), 0, staged);
        if (::fsync(fd.get()) != 0) {
            fail_errno("cannot sync " + staged);
        }
    }
    if (::rename(staged.c_str(), path.c_str()) != 0) {
        fail_errno("cannot rename " + staged);
    }
}

void sync_folder(const std::string & path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // Some file systems do not sync folders and say EINVAL: nothing more can be done there.
    if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL)) {
        fail_errno("cannot sync folder " + path);
    }
}

}  // namespace ladder
