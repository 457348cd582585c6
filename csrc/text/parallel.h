// Texts, and a loop over them that threads share, each taking the next piece of work when it is done with one.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

namespace minillm {
using Texts = std::vector<std::string_view>;          // UTF-8

// Runs work(thread, i) for i < n on up to `threads` threads; an exception in any is thrown here.
template <class F>
void parallel(size_t n, size_t threads, F work) {
    threads = std::min(threads, n);
    std::atomic<size_t> next{0};
    std::exception_ptr error;
    std::mutex guard;
    auto loop = [&](size_t thread) {
        try {
            for (size_t i; (i = next++) < n;) work(thread, i);
        } catch (...) {
            std::lock_guard lock(guard);
            error = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (size_t t = 1; t < threads; t++) others.emplace_back(loop, t);
    loop(0);
    for (std::thread& thread : others) thread.join();
    if (error) std::rethrow_exception(error);
}
}  // namespace minillm
