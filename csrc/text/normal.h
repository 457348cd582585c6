// Which parts of a text the normalization form NFC may change: most texts have none, and a few ranges of characters tell.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/masks.h"
#include "text/pieces.h"

namespace minillm::text {

// Code points that stay as they are in every text: NFC neither replaces nor moves them, nor joins them to what is before
// them. Of further ones nothing is said. Checked against Unicode's data in tests/tokenizer/test_normalize.py.
constexpr struct {
    uint32_t first, last;
} NORMAL[] = {
    {0x0, 0x2FF},     {0x375, 0x37D},   {0x388, 0x482},   {0x48A, 0x590},     {0x5D0, 0x60F},
    {0x620, 0x64A},   {0x1E00, 0x1F70}, {0x2010, 0x20CF}, {0x2100, 0x2125},   {0x212C, 0x2328},
    {0x232B, 0x2ADB}, {0x2E80, 0x3029}, {0x3030, 0x3098}, {0x309B, 0xA66E},   {0xAC00, 0xD7A3},
    {0xE000, 0xF8FF}, {0xFE00, 0xFE1F}, {0xFE30, 0xFFFF}, {0x1F000, 0x1FAFF}, {0x20000, 0x2A6DF},
};

struct NormalTable {
    std::vector<uint8_t> normal = std::vector<uint8_t>(0x110000);
    NormalTable() {
        for (auto& range : NORMAL)
            for (uint32_t c = range.first; c <= range.last; c++) normal[c] = 1;
    }
};
inline const NormalTable NORMAL_TABLE;

constexpr uint8_t HIGH = 0xCC;  // the first byte of characters from U+0300 on, at least
constexpr int64_t NEARBY = 32;  // parts closer than this are one

// [begin, end) in characters of the parts of a text that NFC may change, each with the character before it.
inline std::vector<std::pair<int64_t, int64_t>> abnormal_parts(std::string_view text) {
    std::vector<std::pair<int64_t, int64_t>> parts;
    auto p = reinterpret_cast<const uint8_t*>(text.data()), end = p + text.size();
    for (int64_t i = 0; p < end;) {
        auto block = reinterpret_cast<const char*>(p);
        if (end - p >= 64 && !in_range(block, char(HIGH), char(256 - HIGH))) {
            i += 64 - __builtin_popcountll(in_range(block, char(0x80), 0x40)), p += 64;  // all but the later bytes
        } else if (*p < HIGH) {
            i += !continues(char(*p++));
        } else {
            bool stays = NORMAL_TABLE.normal[next_character(p)];
            if (!stays && !parts.empty() && i - parts.back().second < NEARBY) parts.back().second = i + 1;
            else if (!stays) parts.push_back({i ? i - 1 : 0, i + 1});
            i++;
        }
    }
    return parts;
}
}  // namespace minillm::text
