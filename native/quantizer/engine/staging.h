// The output folder. A file has its final name only when it is whole; until then it is NAME.quantmint-part.
//
// FOLDER/.quantmint-ladder/ holds the lock, scratch files of a running ladder, and one record for each finished file:
// a digest of everything its bytes come from, and the digest of its bytes. A later run takes a finished file as done
// only when the first is equal and the file, hashed again, has the second.
#pragma once

#include <string>
#include <vector>

#include "owned.h"
#include "plan.h"

namespace ladder {

struct Record {
    std::string key;      // of what the bytes come from
    std::string sha256;   // of the bytes
    std::string facts;    // one line of JSON for whoever asked for the file
};

class OutFolder {
public:
    // Makes the folder, takes its lock and removes what killed runs left. Throws a user Failure when another ladder
    // holds the lock.
    explicit OutFolder(const std::string & path);
    ~OutFolder();
    OutFolder(const OutFolder &) = delete;
    OutFolder & operator=(const OutFolder &) = delete;

    std::string final_path(const std::string & name) const { return path_ + "/" + name; }
    std::string staged_path(const std::string & name) const { return path_ + "/" + name + ".quantmint-part"; }
    const std::string & scratch() const { return scratch_; }

    // Removes staged files, except those named by `keep`.
    void sweep_staged(const std::vector<std::string> & keep) const;
    // Throws a user Failure when the file system has less than `bytes` free.
    void check_room(uint64_t bytes) const;
    // Reserves all its bytes, so that a full disk is found before any work. Throws a user Failure.
    Fd create_staged(const std::string & name, uint64_t size) const;
    // The staged file that a killed run left; no file when its size is another.
    Fd reopen_staged(const std::string & name, uint64_t size) const;
    std::string journal_path() const { return state_ + "/journal"; }
    void discard_staged(const std::string & name) const;
    // Waits until the bytes are on disk. Then `publish` makes them visible, record first.
    void sync_staged(const Fd & file, const std::string & name) const;
    void publish(const std::string & name, const Record & record) const;
    void sync() const { sync_folder(path_); }

    // The record of `name`, with an empty key when there is none or it cannot be read.
    Record record(const std::string & name) const;

private:
    std::string record_path(const std::string & name) const { return state_ + "/" + name + ".done"; }

    std::string path_;
    std::string state_;
    std::string scratch_;
    Fd          lock_;
};

// SHA-256 of a file's bytes; empty when it cannot be read whole.
std::string file_sha256(const std::string & path);

}  // namespace ladder
