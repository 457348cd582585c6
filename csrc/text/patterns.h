// The patterns of minillm/tokenizer/pretokenize.py, one word at a time: match_NAME says where the word that begins at
// p ends, alternative by alternative of the regular expression.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "text/unicode_tables.h"

namespace minillm::text {
enum class Pattern { gpt2, cl100k, o200k, llama3, qwen2, qwen35, smollm, deepseek };

inline Pattern pattern_named(const std::string& name) {
    if (name == "gpt2") return Pattern::gpt2;
    if (name == "cl100k") return Pattern::cl100k;
    if (name == "o200k") return Pattern::o200k;
    if (name == "llama3") return Pattern::llama3;
    if (name == "qwen2") return Pattern::qwen2;
    if (name == "qwen3.5") return Pattern::qwen35;
    if (name == "smollm") return Pattern::smollm;
    if (name == "deepseek") return Pattern::deepseek;
    throw std::invalid_argument("no pattern called '" + name + "' is built in");
}

// ---- characters

constexpr uint8_t DIGIT = 64, HAN = 128;     // what Hugging Face's Digits cuts out, and DeepSeek: Chinese and kana
constexpr struct {
    uint32_t first, last;
    uint8_t flag;
} MORE_KINDS[] = {{0x11DE0, 0x11DE9, DIGIT},
                  {0x16FF4, 0x16FF6, DIGIT},     // Digits has Unicode 17.0
                  {0x4E00, 0x9FA5, HAN},
                  {0x3040, 0x30FF, HAN}};

// The kind of every code point: 1.1 MB, of which a text touches the pages that its scripts need.
struct KindTable {
    std::vector<uint8_t> kind;
    KindTable() : kind(0x110000) {
        size_t n = sizeof(KIND_RUNS) / sizeof(KindRun);
        for (size_t i = 0; i < n; i++) {
            size_t end = i + 1 < n ? KIND_RUNS[i + 1].first : kind.size();
            uint8_t flags = KIND_RUNS[i].kind | (KIND_RUNS[i].kind & NUMBER ? DIGIT : 0);
            memset(&kind[KIND_RUNS[i].first], flags, end - KIND_RUNS[i].first);
        }
        for (auto& more : MORE_KINDS)
            for (uint32_t code = more.first; code <= more.last; code++) kind[code] |= more.flag;
    }
};
inline const KindTable KINDS;

struct Char { uint8_t kind, length; };       // length 0: the end of the text

inline bool continues(char byte) { return (uint8_t(byte) & 0xC0) == 0x80; }

// The character at p. Bytes that are no UTF-8 count as characters of no class, so nothing is ever read past `end`.
inline Char char_at(const char* p, const char* end) {
    if (p >= end) return {0, 0};
    uint8_t a = *p;
    if (a < 0x80) return {KINDS.kind[a], 1};
    int length = a >= 0xF0 ? 4 : a >= 0xE0 ? 3 : 2;
    if (a < 0xC0 || end - p < length) return {0, 1};
    uint32_t code = a & (0x7F >> length);
    for (int i = 1; i < length; i++) code = code << 6 | (uint8_t(p[i]) & 0x3F);
    return {code < 0x110000 ? KINDS.kind[code] : uint8_t(0), uint8_t(length)};
}

// ---- the patterns, one word at a time

constexpr uint8_t NOT_OTHER = LETTER | NUMBER | SPACE;

inline bool is_other(Char c) { return c.length && !(c.kind & NOT_OTHER); }
inline bool is(Char c, uint8_t flag) { return c.kind & flag; }
inline bool is_newline(const char* p, const char* end) { return p < end && (*p == '\n' || *p == '\r'); }

// The end of the run of characters with `flag` (flag 0: of no class) that begins at p.
inline const char* run(const char* p, const char* end, uint8_t flag, int most = INT32_MAX) {
    for (Char c = char_at(p, end); most-- && (flag ? is(c, flag) : is_other(c)); c = char_at(p, end)) p += c.length;
    return p;
}

// The end of the run of letters, or of letters and marks, at p: 16 bytes of ASCII at a time.
template <uint8_t LETTERS>
inline const char* run_letters(const char* p, const char* end) {
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i v = _mm_or_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), _mm_set1_epi8(32));
        __m128i shifted = _mm_sub_epi8(v, _mm_set1_epi8(char('a' + 128)));
        unsigned others = ~unsigned(_mm_movemask_epi8(_mm_cmplt_epi8(shifted, _mm_set1_epi8(char(26 - 128)))));
        int n = __builtin_ctz(others);              // 16 if all are letters: the bits above are set
        p += n;
        if (n == 16) continue;
        if (uint8_t(*p) < 0x80) return p;
        Char c = char_at(p, end);
        if (!is(c, LETTERS)) return p;
        p += c.length;
    }
#endif
    return run(p, end, LETTERS);
}

// Length of 's 't 're 've 'm 'll 'd at p, or 0. In any case also 'S and so on; U+017F is a lower case of S, too.
inline int contraction(const char* p, const char* end, bool any_case) {
    if (p >= end || *p != '\'' || end - p < 2) return 0;
    auto at = [&](int i) {
        char c = end - p > i ? p[i] : '\0';
        return any_case && c >= 'A' && c <= 'Z' ? char(c | 32) : c;
    };
    char a = at(1), b = at(2);
    if (a == 's' || a == 'd' || a == 'm' || a == 't') return 2;
    if ((a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e')) return 3;
    return any_case && a == '\xC5' && b == '\xBF' ? 3 : 0;
}

// White space that no other alternative took: \s+(?!\S)|\s. Its last character is left to the word that follows.
inline const char* match_space(const char* p, const char* end) {
    const char* r = run(p, end, SPACE);
    if (r == end) return r;
    const char* last = r - 1;
    while (continues(*last)) last--;
    return last > p ? last : r;
}

// The end of the last newline in the white space at p, or null: \s*[\r\n]+
inline const char* match_newlines(const char* p, const char* end) {
    const char* r = run(p, end, SPACE);
    while (r > p && !is_newline(r - 1, end)) r--;
    return r > p ? r : nullptr;
}

inline const char* match_gpt2(const char* p, const char* end) {
    if (int n = contraction(p, end, false)) return p + n;
    const char* q = *p == ' ' && p + 1 < end ? p + 1 : p;
    Char c = char_at(q, end);
    if (is(c, LETTER)) return run(q, end, LETTER);
    if (is(c, NUMBER)) return run(q, end, NUMBER);
    if (is_other(c)) return run(q, end, 0);
    return match_space(p, end);
}

// gpt2 between digits, each of which is a word.
inline const char* match_smollm(const char* p, const char* end) {
    Char c = char_at(p, end), next = char_at(p + c.length, end);
    if (is(c, DIGIT)) return p + c.length;
    if (*p == ' ' && is(next, DIGIT)) return p + 1;
    if (is(c, SPACE)) {
        const char* r = run(p, end, SPACE);
        if (is(char_at(r, end), DIGIT)) return r;
    }
    if (!is(c, LETTER | SPACE) || (*p == ' ' && is_other(next))) {      // the digits of Unicode 17.0 are of no class
        if (int n = contraction(p, end, false)) return p + n;
        const char* q = p + (*p == ' ');
        for (c = char_at(q, end); is_other(c) && !is(c, DIGIT); c = char_at(q, end)) q += c.length;
        return q;
    }
    return match_gpt2(p, end);
}

// cl100k and its descendants: up to MOST digits are a word, and (END) white space that ends the text; LETTERS are
// letters, or letters and marks.
template <int MOST, bool END, uint8_t LETTERS = LETTER>
inline const char* match_cl100k_like(const char* p, const char* end) {
    if (int n = contraction(p, end, true)) return p + n;
    Char c = char_at(p, end);
    if (is(c, LETTERS)) {           // a mark may lead other letters, but then they are one run anyway
        return run_letters<LETTERS>(p + c.length, end);
    }
    if (is(c, NUMBER)) return run(p, end, NUMBER, MOST);
    const char* next = p + c.length;
    if (!is_newline(p, end) && is(char_at(next, end), LETTERS)) return run_letters<LETTERS>(next, end);
    const char* q = *p == ' ' ? next : p;
    auto other = [&](const char* at) {
        Char d = char_at(at, end);
        return is_other(d) && !is(d, LETTERS) ? d.length : 0;
    };
    if (int n = other(q)) {
        for (; n; n = other(q)) q += n;
        while (is_newline(q, end)) q++;
        return q;
    }
    if (END && run(p, end, SPACE) == end) return end;
    if (const char* r = match_newlines(p, end)) return r;
    return match_space(p, end);
}

// DeepSeek's three steps at once: digits, and Chinese and kana, are cut out; a word ends where one of them begins or ends,
// as if the text did. What no alternative matches is a word up to the next match.
inline const char* match_deepseek(const char* p, const char* end) {
    constexpr uint8_t WORD = UPPER | LOWER, NEVER_LEADS = LETTER | SIGN;        // [\p{L}\p{M}], but for newlines
    Char c = char_at(p, end);
    if (is(c, NUMBER)) return run(p, end, NUMBER, 3);
    uint8_t side = c.kind & HAN;
    auto at = [&](const char* q) {
        Char found = char_at(q, end);
        return (found.kind & HAN) != side || is(found, NUMBER) ? Char{0, 0} : found;
    };
    auto run_of = [&](const char* q, uint8_t flags) {
        for (Char found = at(q); is(found, flags); found = at(q)) q += found.length;
        return q;
    };
    auto ascii_letter = [&](const char* q) { return q < end && (*q | 32) >= 'a' && (*q | 32) <= 'z'; };
    const char* next = p + c.length;
    if (is(c, SIGN) && c.length == 1 && ascii_letter(next)) {
        while (ascii_letter(next)) next++;
        return next;
    }
    if (!is(c, NEVER_LEADS) && !is_newline(p, end) && is(at(next), WORD)) return run_of(next, WORD);
    if (is(c, WORD)) return run_of(p, WORD);
    const char* q = *p == ' ' ? next : p;
    if (is(at(q), SIGN)) {
        q = run_of(q, SIGN);
        while (!side && is_newline(q, end)) q++;      // kana's signs have none: the text seems to end behind them
        return q;
    }
    if (is(c, SPACE)) {
        const char *r = run_of(p, SPACE), *last = r;
        while (last > p && !is_newline(last - 1, end)) last--;
        if (last > p) return last;
        return at(r).length ? match_space(p, end) : r;
    }
    for (c = at(next); c.length && !is(c, WORD | SIGN | SPACE) && !is(at(next + c.length), WORD); c = at(next))
        next += c.length;
    return next;
}

// o200k's words of letters and marks: [upper]*[lower]+ from q, or null. Caseless letters and marks are both.
inline const char* match_lower(const char* q, const char* end) {
    const char *p = q, *last_lower = nullptr;
    for (Char c = char_at(p, end); is(c, UPPER); c = char_at(p, end)) {
        p += c.length;
        if (is(c, LOWER)) last_lower = p;
    }
    return is(char_at(p, end), LOWER) ? run(p, end, LOWER) : last_lower;      // else give back down to a lower one
}

inline const char* match_upper(const char* q, const char* end) {
    const char* p = run(q, end, UPPER);
    return p > q ? run(p, end, LOWER) : nullptr;
}

// The end of the run of bytes from `first` to `first` + 25 at p, of which 16 may be read at a time up to `end`.
inline const char* run_case(const char* p, const char* end, char first) {
#ifdef __SSE2__
    for (int n = 16; n == 16 && end - p >= 16; p += n) {
        __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        __m128i shifted = _mm_sub_epi8(v, _mm_set1_epi8(char(first + 128)));
        n = __builtin_ctz(~unsigned(_mm_movemask_epi8(_mm_cmplt_epi8(shifted, _mm_set1_epi8(char(26 - 128))))));
        if (n < 16) return p + n;
    }
#endif
    while (p < end && uint8_t(*p - first) < 26) p++;
    return p;
}

// Most of o200k's words, [^\r\n\p{L}\p{N}]?[A-Z]*[a-z]* with a letter in ASCII and nothing longer behind it; or null.
inline const char* match_ascii(const char* p, const char* end) {
    auto letter = [&](const char* q) { return q < end && uint8_t((*q | 32) - 'a') < 26; };
    uint8_t c = *p;
    const char* q = letter(p) ? p : p + 1;
    if (c >= 0x80 || !letter(q) || (q > p && (c == '\n' || c == '\r' || (c >= '0' && c <= '9')))) return nullptr;
    q = *q & 32 ? q : run_case(q + 1, end, 'A');
    q = run_case(q, end, 'a');
    if (q < end && uint8_t(*q) >= 0x80) return nullptr;
    return q + contraction(q, end, true);
}

inline const char* match_o200k(const char* p, const char* end) {
    if (const char* q = match_ascii(p, end)) return q;
    Char c = char_at(p, end);
    bool may_lead = !is(c, LETTER | NUMBER) && !is_newline(p, end);       // [^\r\n\p{L}\p{N}]? before the letters
    const char* next = p + c.length;
    const char* r = nullptr;
    if (may_lead) r = match_lower(next, end);
    if (!r) r = match_lower(p, end);
    if (!r && may_lead) r = match_upper(next, end);
    if (!r) r = match_upper(p, end);
    if (r) return r + contraction(r, end, true);
    if (is(c, NUMBER)) return run(p, end, NUMBER, 3);
    const char* q = *p == ' ' ? next : p;
    if (is_other(char_at(q, end))) {
        q = run(q, end, 0);
        while (is_newline(q, end) || (q < end && *q == '/')) q++;
        return q;
    }
    if ((r = match_newlines(p, end))) return r;
    return match_space(p, end);
}

inline const char* match(Pattern pattern, const char* p, const char* end) {
    switch (pattern) {
        case Pattern::gpt2: return match_gpt2(p, end);
        case Pattern::cl100k: return match_cl100k_like<3, true>(p, end);
        case Pattern::llama3: return match_cl100k_like<3, false>(p, end);
        case Pattern::qwen2: return match_cl100k_like<1, false>(p, end);
        case Pattern::qwen35: return match_cl100k_like<1, false, UPPER | LOWER>(p, end);
        case Pattern::smollm: return match_smollm(p, end);
        case Pattern::deepseek: return match_deepseek(p, end);
        default: return match_o200k(p, end);
    }
}
}  // namespace minillm::text
