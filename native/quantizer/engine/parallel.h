// The same work on many things by several threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace ladder {

// Calls work(0) ... work(count - 1), each once, on up to `threads` threads; rethrows the first exception.
template <typename Work>
void for_each_index(size_t count, int threads, const Work & work) {
    std::atomic<size_t> next{0};
    std::exception_ptr error;
    std::mutex mutex;
    const auto run = [&] {
        for (size_t i = next++; i < count; i = next++) {
            try {
                work(i);
            } catch (...) {
                const std::lock_guard<std::mutex> guard(mutex);
                error = error ? error : std::current_exception();
            }
        }
    };
    std::vector<std::thread> helpers;
    for (int i = 1; i < threads && size_t(i) < count; ++i) {
        helpers.emplace_back(run);
    }
    run();
    for (std::thread & helper : helpers) {
        helper.join();
    }
    if (error) {
        std::rethrow_exception(error);
    }
}

}  // namespace ladder
