// Finding added tokens in a text: the leftmost, and of those that begin at one place the longest.
//
// One with NOT_TAKEN for an id stays ordinary text, in which no other is looked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "text/masks.h"

namespace minillm::text {
constexpr uint32_t NOT_TAKEN = UINT32_MAX;

class Specials {
    std::vector<std::pair<std::string, uint32_t>> by_first[256];
    std::vector<uint8_t> firsts;
    std::vector<bool> pairs = std::vector<bool>(65536);       // of bytes that one begins with

    // Where one may begin, from p on, as its first byte says; or `end`.
    const char* candidate(const char* p, const char* end) const {
        if (firsts.size() == 1) {
            auto found = static_cast<const char*>(memchr(p, firsts[0], end - p));
            return found ? found : end;
        }
        for (; end - p >= 64 && firsts.size() <= 8; p += 64) {
            uint64_t found = 0;
            for (uint8_t first : firsts) found |= in_range(p, char(first), 1);
            if (found) return p + lowest_bit(found);
        }
        while (p < end && by_first[uint8_t(*p)].empty()) p++;
        return p;
    }

    bool may_begin(const char* p, const char* end) const {
        return end - p < 2 || pairs[uint8_t(p[0]) << 8 | uint8_t(p[1])];
    }

public:
    void add(const std::string& text, uint32_t id) {
        uint8_t first = text[0];
        if (by_first[first].empty()) firsts.push_back(first);
        by_first[first].push_back({text, id});
        for (int second = 0; second < 256; second++)
            if (text.size() < 2 || uint8_t(text[1]) == second) pairs[first << 8 | second] = true;
    }

    void finish() {
        for (uint8_t first : firsts)
            std::stable_sort(by_first[first].begin(), by_first[first].end(),
                             [](auto& a, auto& b) { return a.first.size() > b.first.size(); });
    }

    bool empty() const { return firsts.empty(); }

    // The next special token at or after p; its place, or `end`.
    const char* next(const char* p, const char* end, size_t* length, uint32_t* id) const {
        for (p = candidate(p, end); p < end; p = candidate(p + 1, end)) {
            if (!may_begin(p, end)) continue;
            for (auto& [text, number] : by_first[uint8_t(*p)])
                if (size_t(end - p) >= text.size() && !memcmp(p, text.data(), text.size())) {
                    if (number == NOT_TAKEN) {
                        p += text.size() - 1;
                        break;
                    }
                    *length = text.size(), *id = number;
                    return p;
                }
        }
        return end;
    }

    // Calls plain(text, length) and special(id) for the parts of a text in their order.
    template <class P, class S>
    void split(const char* p, size_t n, P plain, S special) const {
        for (const char* end = p + n; p < end;) {
            size_t length = 0;
            uint32_t id = 0;
            const char* next_special = empty() ? end : next(p, end, &length, &id);
            if (next_special > p) plain(p, size_t(next_special - p));
            if (length) special(id);
            p = next_special + length;
        }
    }
};
}  // namespace minillm::text
