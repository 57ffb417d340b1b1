#include "staging.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "failure.h"
#include "sha256.h"

namespace ladder {

namespace {

namespace fs = std::filesystem;

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Left by killed runs; the caller holds the lock, so no living run owns them.
void sweep_state(const std::string & state) {
    for (const fs::directory_entry & entry : fs::directory_iterator(state)) {
        const std::string name = entry.path().filename().string();
        if (name == "scratch" || ends_with(name, ".part")) {
            fs::remove_all(entry.path());
        }
    }
}

}  // namespace

OutFolder::OutFolder(const std::string & path) : path_(path), state_(path + "/.quantmint-ladder"), scratch_(state_ + "/scratch") {
    try {
        fs::create_directories(state_);
        lock_ = Fd(::open((state_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
        if (lock_.get() < 0) {
            fail_errno("cannot create the lock in " + state_);
        }
        if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
            throw Failure(Blame::user, "another ladder is writing to " + path_ + ": wait for it, or give another folder");
        }
        sweep_state(state_);
        fs::create_directory(scratch_);
    } catch (const fs::filesystem_error & error) {
        throw Failure(Blame::user, std::string("cannot use the output folder: ") + error.what());
    }
}

OutFolder::~OutFolder() {
    std::error_code ignored;  // what stays is swept by the next run
    fs::remove_all(scratch_, ignored);
}

Fd OutFolder::create_staged(const std::string & name, uint64_t size) const {
    const std::string path = staged_path(name);
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file.get() < 0) {
        fail_errno("cannot create " + path);
    }
    // Not every file system can reserve space, and in memory it costs as much as writing: there, only the length is
    // set, and a disk that others fill meanwhile shows up later.
    struct statfs system;
    const bool in_memory = ::fstatfs(file.get(), &system) == 0 && system.f_type == TMPFS_MAGIC;
    if (!in_memory && ::fallocate(file.get(), 0, 0, off_t(size)) == 0) {
        return file;
    }
    const bool can_reserve = !in_memory && errno != EOPNOTSUPP && errno != ENOSYS;
    if (can_reserve || ::ftruncate(file.get(), off_t(size)) != 0) {
        fail_errno("cannot reserve " + std::to_string(size) + " bytes for " + path);
    }
    return file;
}

void OutFolder::check_room(uint64_t bytes) const {
    struct statvfs room;
    if (::statvfs(path_.c_str(), &room) != 0) {
        fail_errno("cannot ask for the free space of " + path_);
    }
    const uint64_t free = uint64_t(room.f_bavail) * room.f_frsize;
    if (free < bytes) {
        throw Failure(Blame::user, "No space left on device for " + path_ + ": the files need " + std::to_string(bytes) +
                      " bytes, " + std::to_string(free) + " are free");
    }
}

Fd OutFolder::reopen_staged(const std::string & name, uint64_t size) const {
    Fd file(::open(staged_path(name).c_str(), O_RDWR | O_CLOEXEC));
    struct stat info;
    if (file.get() >= 0 && ::fstat(file.get(), &info) == 0 && uint64_t(info.st_size) == size) {
        return file;
    }
    return Fd();
}

void OutFolder::sweep_staged(const std::vector<std::string> & keep) const {
    for (const fs::directory_entry & entry : fs::directory_iterator(path_)) {
        const std::string path = path_ + "/" + entry.path().filename().string();
        if (ends_with(path, ".gguf.quantmint-part") && std::find(keep.begin(), keep.end(), path) == keep.end()) {
            fs::remove(entry.path());
        }
    }
}

void OutFolder::discard_staged(const std::string & name) const {
    ::unlink(staged_path(name).c_str());
}

void OutFolder::sync_staged(const Fd & file, const std::string & name) const {
    if (::fsync(file.get()) != 0) {
        fail_errno("cannot write " + staged_path(name) + " to disk");
    }
}

void OutFolder::publish(const std::string & name, const Record & record) const {
    write_text_whole(record_path(name), record.key + "\n" + record.sha256 + "\n" + record.facts + "\n");
    if (::rename(staged_path(name).c_str(), final_path(name).c_str()) != 0) {
        fail_errno("cannot rename " + staged_path(name));
    }
}

Record OutFolder::record(const std::string & name) const {
    Record record;
    std::error_code missing;
    if (!fs::is_regular_file(record_path(name), missing)) {
        return record;
    }
    std::istringstream lines(read_text(record_path(name)));
    if (!std::getline(lines, record.key) || !std::getline(lines, record.sha256) || !std::getline(lines, record.facts) ||
        record.facts.empty() || record.facts.back() != '}') {
        return Record();
    }
    return record;
}

std::string file_sha256(const std::string & path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
        return "";
    }
    Sha256 digest;
    std::vector<char> piece(1 << 20);
    for (;;) {
        const ssize_t got = ::read(file.get(), piece.data(), piece.size());
        if (got == 0) {
            return digest.finish();
        }
        if (got < 0 && errno != EINTR) {
            return "";
        }
        digest.update(piece.data(), got < 0 ? 0 : size_t(got));
    }
}

}  // namespace ladder
