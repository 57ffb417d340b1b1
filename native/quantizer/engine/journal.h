// What a running ladder has finished, tensor by tensor, so that a killed one does not start again from nothing.
//
// The journal names the staged files of a run, each with the digest of what its bytes come from, and then every
// (tensor, type) whose bytes are in all of them, with the digest of those bytes. Nothing in it is believed without
// hashing the staged bytes again: it needs no syncs, and survives a power failure as well as a kill.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "work.h"

namespace ladder {

class Journal {
public:
    explicit Journal(std::string path) : path_(std::move(path)) {}

    // What an earlier run left; an unfinished last line is no line.
    void load();
    // Whether that run was making the same file: same name, same key.
    bool was_making(const std::string & name, const std::string & key) const;
    // Marks as done each target whose bytes are in all of its files with the digest that the journal has for them.
    void trust(std::vector<TensorWork> & work, const std::vector<OpenFile> & files, int threads) const;
    // Starts this run's journal with these files and the targets that are done.
    void begin(const std::vector<TensorWork> & work, const std::vector<OpenFile> & files);
    // Threads may call this at once.
    void add(const TensorWork & work, const Target & target);
    void remove();

private:
    using TensorType = std::pair<std::string, std::string>;

    std::string                        path_;
    std::map<std::string, std::string> keys_;     // by file name
    std::map<TensorType, std::string>  digests_;
    std::mutex                         mutex_;
    Fd                                 out_;
};

}  // namespace ladder
