// Words of scripts without spaces are long and seldom come again; so they are cut into pieces that do.
//
// If two characters stand side by side in no token that merging makes, no merge reaches over the place between them, so
// what is before it and what is behind it may be merged apart: the ids are the same.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

namespace minillm::text {

// The character at p, which moves behind it. The text is UTF-8.
inline uint32_t next_character(const uint8_t*& p) {
    uint32_t c = *p++;
    if (c < 0x80) return c;
    int more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    c &= 0x3F >> more;
    while (more--) c = c << 6 | (*p++ & 0x3F);
    return c;
}

// For words that are not cut any further.
struct NoPieces {
    bool cut(uint32_t, uint32_t) const { return false; }
};

constexpr uint32_t PLANE = 0x10000;  // code points that have a place of their own in tables
constexpr uint32_t EMOJI = 0x1F000, EMOJIS = 0x1000;  // and some more in that of single characters

// Pairs of characters that a merge may join. Two ASCII characters always count as such: words of ASCII are left whole.
//
// Pairs are bits at a hash of theirs, for a wrong bit only leaves a piece longer. Where a token begins or ends inside
// one of the two characters, all that have the same bytes at the place between them count.
class Joins {
    static constexpr size_t ROOM = 32;  // bits for each pair: at most one in 32 others meets one
    static constexpr uint8_t LEFT = 1, RIGHT = 2;
    std::vector<uint64_t> pairs, bytes;
    std::vector<uint8_t> sides;  // of a code point: on which side of a pair it occurs

    int shift = 64 - 6;  // of a pair's hash, to a place among the bits
    std::vector<uint64_t> hashes;  // of pairs that are not among them yet

    static uint64_t hash(uint32_t c, uint32_t d) { return (c * 0x9E3779B97F4A7C15u + d) * 0xD1B54A32D192ED03u; }
    static uint64_t place_of_bytes(uint8_t last, uint8_t first) { return uint64_t(last) << 8 | first; }
    static uint8_t first_byte(uint32_t c) {
        return c < 0x80 ? c : c < 0x800 ? 0xC0 | c >> 6 : c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18;
    }
    static uint8_t last_byte(uint32_t c) { return c < 0x80 ? c : 0x80 | (c & 0x3F); }
    static void set(std::vector<uint64_t>& bits, uint64_t i) { bits[i >> 6] |= uint64_t(1) << (i & 63); }
    static bool has(const std::vector<uint64_t>& bits, uint64_t i) { return bits[i >> 6] >> (i & 63) & 1; }
    static bool inside(uint8_t byte) { return (byte & 0xC0) == 0x80; }

    // Whether from .. to are the bytes of one character, as its first says.
    static bool complete(const uint8_t* from, const uint8_t* to) {
        return to - from == (*from < 0x80 ? 1 : *from < 0xC0 ? 0 : *from < 0xE0 ? 2 : *from < 0xF0 ? 3 : 4);
    }

    // The place between two characters of the token begin .. end.
    void add_between(const uint8_t* begin, const uint8_t* between, const uint8_t* end) {
        const uint8_t *c = between - 1, *d = between, *behind = between + 1;
        while (c > begin && inside(*c)) c--;
        while (behind < end && inside(*behind)) behind++;
        if (!complete(c, between) || !complete(d, behind)) return set(bytes, place_of_bytes(between[-1], *between));
        uint32_t left = next_character(c), right = next_character(d);
        hashes.push_back(hash(left, right));
        if (left < PLANE) sides[left] |= LEFT;
        if (right < PLANE) sides[right] |= RIGHT;
    }

    // As many bits as the pairs need: a small table stays in L1 or L2.
    void set_pairs() {
        std::sort(hashes.begin(), hashes.end());
        hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
        while (size_t(1) << (64 - shift) < ROOM * hashes.size()) shift--;
        pairs.assign(size_t(1) << (64 - shift - 6), 0);
        for (uint64_t pair : hashes) set(pairs, pair >> shift);
        hashes.clear(), hashes.shrink_to_fit();
    }

    // Every character with such bytes occurs on that side.
    void spread_bytes() {
        bool left[256] = {}, right[256] = {};
        for (int i = 0; i < 65536; i++)
            if (has(bytes, i)) left[i >> 8] = right[i & 255] = true;
        for (uint32_t c = 0; c < PLANE; c++) sides[c] |= left[last_byte(c)] * LEFT | right[first_byte(c)] * RIGHT;
    }

public:
    // tokens: all that merging makes.
    explicit Joins(const std::vector<std::string_view>& tokens) : bytes(65536 / 64), sides(PLANE) {
        for (std::string_view token : tokens) {
            auto p = reinterpret_cast<const uint8_t*>(token.data()), end = p + token.size();
            for (auto q = p + 1; q < end; q++)
                if (!inside(*q) && (*q | q[-1]) >= 0x80) add_between(p, q, end);
        }
        set_pairs();
        spread_bytes();
    }

    // Whether a piece may end between c and d.
    bool cut(uint32_t c, uint32_t d) const {
        bool plane = (c | d) < PLANE, apart = !(sides[plane ? c : 0] & sides[plane ? d : 0] >> 1 & LEFT) & plane;
        bool joined = int(has(pairs, hash(c, d) >> shift)) | has(bytes, place_of_bytes(last_byte(c), first_byte(d)));
        return ((c | d) >= 0x80) & (apart | !joined);
    }
};

// The ids of single characters, where they are found without a key. Pages are touched as a text needs them. Where there is
// no room for them all, only their number is here.
template <class T>
struct Single {
    static constexpr size_t INSIDE = sizeof(T) == 2 ? 4 : 3;
    T ids[INSIDE], count;  // count 0: not known yet
};
}  // namespace minillm::text
