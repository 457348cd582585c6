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

namespace minillm::text {
constexpr uint32_t NOT_TAKEN = UINT32_MAX;

class Specials {
    std::vector<std::pair<std::string, uint32_t>> by_first[256];
    std::vector<uint8_t> firsts;

public:
    void add(const std::string& text, uint32_t id) {
        uint8_t first = text[0];
        if (by_first[first].empty()) firsts.push_back(first);
        by_first[first].push_back({text, id});
    }

    void finish() {
        for (uint8_t first : firsts)
            std::stable_sort(by_first[first].begin(), by_first[first].end(),
                             [](auto& a, auto& b) { return a.first.size() > b.first.size(); });
    }

    bool empty() const { return firsts.empty(); }

    // The next special token at or after p; its place, or `end`.
    const char* next(const char* p, const char* end, size_t* length, uint32_t* id) const {
        for (; p < end; p++) {
            if (firsts.size() == 1) {
                p = static_cast<const char*>(memchr(p, firsts[0], end - p));
                if (!p) return end;
            }
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
