// The gradient buffer whose pages return to the arena: gradients live from a step's backward to its update only.
//
// Cleared, its pages go to the arena (arena.h), where the next forward finds them. Before a part of it is written, the
// model says so, and idle pages come back for it. Whoever writes without saying so gets new memory from the system.
#pragma once

#include "cpu/memory/arena.h"

namespace minillm {

class LentPages {
    char *first, *last;                                    // the buffer
    char *begin, *end;                                     // of the huge pages that lie in it as a whole
    std::vector<bool> missing;                             // of each page: cleared, and not asked for since

public:
    LentPages(void* buffer, int64_t bytes) : first(static_cast<char*>(buffer)), last(first + bytes) {
        begin = first + (-reinterpret_cast<intptr_t>(first) & (HUGE_PAGE - 1));
        end = std::max(begin, last - (reinterpret_cast<intptr_t>(last) & (HUGE_PAGE - 1)));
        missing.resize((end - begin) / HUGE_PAGE, true);
        arena().expect_loans(end - begin);
    }
    ~LentPages() { arena().expect_loans(begin - end); }
    LentPages(const LentPages&) = delete;

    int64_t bytes() const { return last - first; }

    void clear() {
        if (begin == end) return void(std::memset(first, 0, bytes()));
        std::memset(first, 0, begin - first);
        std::memset(end, 0, last - end);
        for (size_t i = 0; i < missing.size(); i++)
            if (in_memory(i)) arena().lend(begin + i * HUGE_PAGE);
        missing.assign(missing.size(), true);
    }

    // Bytes [from, to) will be written now.
    void expect(int64_t from, int64_t to) {
        std::vector<char*> wanted;
        for (size_t i = 0; i < missing.size(); i++) {
            char* page = begin + i * HUGE_PAGE;
            if (!missing[i] || page + HUGE_PAGE <= first + from || page >= first + to) continue;
            missing[i] = false;
            if (!in_memory(i)) wanted.push_back(page);     // else somebody wrote without saying so
        }
        arena().fetch(wanted);
    }

private:
    bool in_memory(size_t i) const {
        std::vector<unsigned char> small(HUGE_PAGE / sysconf(_SC_PAGESIZE));
        if (mincore(begin + i * HUGE_PAGE, HUGE_PAGE, small.data())) return true;
        return std::any_of(small.begin(), small.end(), [](unsigned char page) { return page & 1; });
    }
};

}  // namespace minillm
