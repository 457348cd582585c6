// Memory for results, used again and again. A training step makes arrays of the same sizes each time; malloc would hand
// large ones back to the system and fault them in anew, page by page, which costs a memory-bound op as much as its work
// (and several times that in a virtual machine whose host takes free pages away).
//
// An arena: a long range of addresses, and each array goes to the lowest hole it fits into, so that a step finds its
// places again. Pages are huge ones (2 MB). One that no array lies on is idle, and some idle pages are kept.
//
// What a forward leaves for the backward is dropped while the backward fills the gradients, and the pages of the one
// should be the room of the other, or both need memory of their own. So pages move: mremap gives a page another address
// without a copy. A buffer that is cleared leaves its pages here (`lend`); one that will soon be written gets idle ones,
// set to zero (`fetch`).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <vector>

namespace minillm {

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4  // Linux 5.7; an older system refuses it, and pages are given back to it instead
#endif

constexpr int64_t HUGE_PAGE = 1 << 21;

class Arena {
    static constexpr int64_t HEADER = 64;  // before each array stands its size, a cache line long
    // Bytes of idle pages, beside twice as many as buffers may lend: gradients, and what of a step's activations and logits is
    // more than they are.
    static constexpr int64_t KEPT = 32 << 20;
    char* base = nullptr;
    std::map<int64_t, int64_t> holes;  // begin -> end of what no array uses; neighbours are merged
    std::vector<int32_t> users;  // of each page: the arrays that lie on it
    std::vector<bool> filled;  // of each page: has memory, or will at its first use
    std::set<int64_t> idle;  // pages filled and without users
    int64_t lent = 0;  // bytes of the buffers that lend
    std::mutex lock;

    char* page(int64_t i) const { return base + i * HUGE_PAGE; }
    int64_t most() const { return KEPT + 2 * lent; }

public:
    Arena() {
        int64_t size = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / HUGE_PAGE * HUGE_PAGE;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* p = mmap(nullptr, size + HUGE_PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (p == MAP_FAILED) return;  // addresses are limited: every array comes from malloc
        base = static_cast<char*>(p) + (-reinterpret_cast<intptr_t>(p) & (HUGE_PAGE - 1));
        madvise(base, size, MADV_HUGEPAGE);
        holes[0] = size;
        users.resize(size / HUGE_PAGE), filled.resize(size / HUGE_PAGE);
    }

    // 64-byte aligned memory, its contents undefined.
    void* take(int64_t bytes) {
        int64_t size = (bytes + HEADER + 63) / 64 * 64;
        std::lock_guard<std::mutex> guard(lock);
        char* block = cut(size);
        if (!block) block = static_cast<char*>(std::aligned_alloc(64, size));
        if (!block) throw std::bad_alloc();
        *reinterpret_cast<int64_t*>(block) = size;
        return block + HEADER;
    }

    void give(void* data) {
        char* block = static_cast<char*>(data) - HEADER;
        if (block < base || block >= page(users.size())) return std::free(block);
        int64_t begin = block - base, end = begin + *reinterpret_cast<int64_t*>(block);
        std::lock_guard<std::mutex> guard(lock);
        for (int64_t i = begin / HUGE_PAGE; i * HUGE_PAGE < end; i++)
            if (--users[i] == 0) idle.insert(i);
        add_hole(begin, end);
        give_back();
    }

    // A page of a buffer, on a page's boundary, becomes zeros that need no memory; an idle page here has it now.
    void lend(char* from) {
        std::lock_guard<std::mutex> guard(lock);
        int64_t i = std::find(filled.begin(), filled.end(), false) - filled.begin();
        bool room = i < int64_t(filled.size()) && int64_t(idle.size()) * HUGE_PAGE < most();
        if (room && move(from, page(i))) filled[i] = true, idle.insert(i);
        else madvise(from, HUGE_PAGE, MADV_DONTNEED);
    }

    // A buffer of so many bytes comes, or goes (bytes below 0).
    void expect_loans(int64_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        lent += bytes;
        give_back();
    }

    // Pages of a buffer without memory get that of idle pages here, as long as there are any, set to zero.
    void fetch(const std::vector<char*>& missing) {
        std::lock_guard<std::mutex> guard(lock);
        std::vector<int64_t> found;
        for (; found.size() < missing.size() && !idle.empty(); idle.erase(found.back()))
            found.push_back(*idle.rbegin());
#pragma omp parallel for
        for (size_t i = 0; i < found.size(); i++) std::memset(page(found[i]), 0, HUGE_PAGE);
        for (size_t i = 0; i < found.size(); i++)
            if (move(page(found[i]), missing[i])) filled[found[i]] = false;
            else idle.insert(found[i]);
    }

private:
    // The lowest hole that is large enough, less `size` bytes from its beginning; null if there is none.
    char* cut(int64_t size) {
        auto hole = std::find_if(holes.begin(), holes.end(), [&](auto& h) { return h.second - h.first >= size; });
        if (hole == holes.end()) return nullptr;
        auto [begin, end] = *hole;
        holes.erase(hole);
        if (begin + size < end) holes[begin + size] = end;
        for (int64_t i = begin / HUGE_PAGE; i * HUGE_PAGE < begin + size; i++)
            if (users[i]++ == 0) occupy(i);
        return base + begin;
    }

    // The page gets its first user. If it has no memory, that of an idle page will do.
    void occupy(int64_t i) {
        if (!filled[i] && !idle.empty()) {
            int64_t last = *idle.rbegin();
            if (move(page(last), page(i))) idle.erase(last), filled[last] = false;
        }
        filled[i] = true;
        idle.erase(i);
    }

    void give_back() {
        while (int64_t(idle.size()) * HUGE_PAGE > most()) {
            int64_t last = *idle.rbegin();
            madvise(page(last), HUGE_PAGE, MADV_DONTNEED);
            idle.erase(last), filled[last] = false;
        }
    }

    void add_hole(int64_t begin, int64_t end) {
        auto after = holes.lower_bound(begin);
        if (after != holes.end() && after->first == end) end = after->second, after = holes.erase(after);
        if (after != holes.begin() && std::prev(after)->second == begin) std::prev(after)->second = end;
        else holes[begin] = end;
    }

    // The memory behind `from` appears at `to`, where there was none; `from` becomes zeros. False if the system refuses.
    static bool move(char* from, char* to) {
        int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        if (mremap(from, HUGE_PAGE, HUGE_PAGE, flags, to) == to) return true;
        mmap(to, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        madvise(to, HUGE_PAGE, MADV_HUGEPAGE);
        return false;
    }
};

// Never destroyed: arrays may outlive the module.
inline Arena& arena() {
    static Arena* the_arena = new Arena;
    return *the_arena;
}

}  // namespace minillm
