#include "events.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "failure.h"
#include "json.h"

namespace ladder {

Events::Events() : out_(::dup(1)) {
    if (out_.get() < 0 || ::dup2(2, 1) < 0) {
        fail_errno("cannot use the standard output");
    }
}

void Events::emit(const std::string & object) {
    const std::lock_guard<std::mutex> guard(mutex_);
    const std::string line = object + "\n";
    for (size_t done = 0; done < line.size();) {
        const ssize_t put = ::write(out_.get(), line.data() + done, line.size() - done);
        if (put < 0 && errno != EINTR) {
            return;  // whoever listened is gone; the files are still wanted
        }
        done += put < 0 ? 0 : size_t(put);
    }
}

Reporter::Reporter(Events & events, const Pass & pass) : events_(events), pass_(pass), thread_([this] { tell(); }) {}

Reporter::~Reporter() {
    {
        const std::lock_guard<std::mutex> guard(mutex_);
        end_ = true;
    }
    ended_.notify_all();
    thread_.join();
}

void Reporter::tell() {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock<std::mutex> lock(mutex_);
    while (!end_) {
        ended_.wait_for(lock, std::chrono::seconds(1));
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        Json event;
        event.text("event", "progress").number("done", pass_.bytes_written()).number("total", pass_.bytes_total());
        events_.emit(event.real("seconds", seconds).object());
    }
}

}  // namespace ladder
