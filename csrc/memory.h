// Memory for results, used again and again. A training step makes arrays of the same sizes each time; malloc would hand
// large ones back to the system and fault them in anew, page by page, which costs a memory-bound op as much as its work.
//
// But not all is kept: what a forward leaves for the backward is freed while the backward fills the gradients, and the
// pages of the one are then the room of the other. So only KEPT bytes wait here, those given back last: older ones are
// of sizes that are not asked for any more, and would keep the others out. Huge pages make giving back cheap.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <vector>

// Blocks that were given back, by size. `take` finds one of the right size class or asks the system.
class Pool {
    static constexpr int64_t HEADER = 64, HUGE_PAGE = 1 << 21;   // before each block stands its size, a cache line long
    static constexpr int64_t KEPT = 32 << 20;
    struct Waiting {
        char* block;
        int64_t since;                                           // a count of all that were ever given back
    };
    std::map<int64_t, std::deque<Waiting>> blocks;               // by size, the oldest in front
    int64_t kept = 0, given = 0;                                 // bytes waiting here; a count of all ever given back
    std::mutex lock;

    // Sizes in steps of an eighth, so that arrays of nearly equal size share blocks and at most 1/8 is wasted.
    static int64_t size_class(int64_t bytes) {
        int64_t step = 4096;
        while (step * 16 <= bytes) step *= 2;
        return (bytes + step - 1) / step * step;
    }

    static char* from_system(int64_t size) {
        int64_t extra = size < 2 * HUGE_PAGE ? 0 : HUGE_PAGE;    // room to start on a huge page
        void* p = mmap(nullptr, size + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        char* block = static_cast<char*>(p);
        if (!extra) return block;
        int64_t before = -reinterpret_cast<intptr_t>(p) & (HUGE_PAGE - 1);
        if (before) munmap(block, before);
        if (before < extra) munmap(block + before + size, extra - before);
        madvise(block + before, size, MADV_HUGEPAGE);
        return block + before;
    }

public:
    void* take(int64_t bytes) {
        int64_t size = size_class(bytes + HEADER);
        char* block = nullptr;
        {
            std::lock_guard<std::mutex> guard(lock);
            auto found = blocks.find(size);
            if (found != blocks.end()) {
                block = found->second.back().block;
                found->second.pop_back();
                if (found->second.empty()) blocks.erase(found);
                kept -= size;
            }
        }
        if (!block) block = from_system(size);
        *reinterpret_cast<int64_t*>(block) = size;
        return block + HEADER;
    }

    void give(void* data) {
        char* block = static_cast<char*>(data) - HEADER;
        int64_t size = *reinterpret_cast<int64_t*>(block);
        std::vector<char*> gone;
        {
            std::lock_guard<std::mutex> guard(lock);
            if (size <= KEPT) {
                while (kept + size > KEPT) gone.push_back(forget_oldest());
                blocks[size].push_back({block, given++});
                kept += size;
            } else {
                gone.push_back(block);
            }
        }
        for (char* old : gone) munmap(old, *reinterpret_cast<int64_t*>(old));
    }

private:
    // Takes the block that has waited longest out of the pool. There are some dozen sizes to look at.
    char* forget_oldest() {
        auto oldest = std::min_element(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) {
            return a.second.front().since < b.second.front().since;
        });
        char* block = oldest->second.front().block;
        kept -= oldest->first;
        oldest->second.pop_front();
        if (oldest->second.empty()) blocks.erase(oldest);
        return block;
    }
};

// Never destroyed: arrays may outlive the module.
inline Pool& pool() {
    static Pool* the_pool = new Pool;
    return *the_pool;
}
