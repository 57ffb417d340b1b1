// What this program tells its caller: one JSON object a line, each written whole.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "pass.h"

namespace ladder {

class Events {
public:
    // Takes the standard output for itself; what llama.cpp prints from now on goes to standard error.
    Events();
    void emit(const std::string & object);

private:
    Fd         out_;
    std::mutex mutex_;
};

// Tells once a second how far the pass is, until it is destroyed.
class Reporter {
public:
    Reporter(Events & events, const Pass & pass);
    ~Reporter();

private:
    void tell();

    Events &                events_;
    const Pass &            pass_;
    std::mutex              mutex_;
    std::condition_variable ended_;
    bool                    end_ = false;
    std::thread             thread_;
};

}  // namespace ladder
