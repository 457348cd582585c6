// The extension minillm._cpp.text: pre-tokenizer, encoder and trainer for Python (minillm/tokenizer/fast.py).
//
// To read it in order (csrc/text): patterns.h and pretokenize.h cut text into words; merge.h, cache.h and encode.h
// make ids of them, encoder.h with several threads (characters.h does for SentencePiece's kind what patterns.h and
// pretokenize.h do); count.h and train.h learn a vocabulary, counter.h with several
// threads.
//
// It is built once, unlike the kernels: text is bytes, branches and cache lines, and SSE2, which every x86-64 has,
// does all the vector work there is (measured: classifying bytes takes about 5% of encoding, and only Chunk::cut gains
// from newer instructions). So it needs no copy for each instruction set, and a change here compiles no kernel again.
#include "python/texts.h"
#include "text/characters.h"
#include "text/counter.h"
#include "text/encode.h"
#include "text/encoder.h"
#include "text/normal.h"
#include "text/pretokenize.h"

namespace minillm::text {
namespace {

constexpr int64_t SMALL_TEXT = 1 << 17, NARROW = 1 << 16;  // bytes; tokens whose ids fit into 16 bits
constexpr size_t UNTOUCHED = 1 << 23;  // ids; memory that is not written costs nothing

template <class T>
Object array_from(const T* numbers, int64_t count) {
    auto array = fresh<T>({count});
    if (count) memcpy(array.data, numbers, count * sizeof(T));
    return array;
}

Object word_starts(std::string_view text, const string& pattern) {
    std::vector<int64_t> found;
    Cutter cutter(pattern_named(pattern));
    int64_t position = 0;
    cutter(text.data(), text.size(), [&](const char*, const uint32_t* starts, size_t count) {
        for (size_t i = 0; i < count; i++) found.push_back(position + starts[i]);
        position += starts[count];
    });
    return array_from(found.data(), found.size());
}

// (n, 2): the parts of a text that NFC may change.
Object abnormal_parts_of(std::string_view text) {
    auto parts = abnormal_parts(text);
    auto result = fresh<int64_t>({int64_t(parts.size()), 2});
    if (!parts.empty()) memcpy(result.data, parts.data(), parts.size() * sizeof parts[0]);
    return result;
}

// ---- encoders: an Encoder of 16 bits an id where all fit, else of 32 ----

// bytes, or None for an id without one
std::vector<std::optional<string>> texts_of(const List& tokens) {
    std::vector<std::optional<string>> texts(tokens.size());
    for (size_t i = 0; i < texts.size(); i++)
        if (Object token = tokens[i]; !token.is_none()) texts[i] = argument<string>(token, "tokens");
    return texts;
}

Merges merges_of(const Array& byte_ids, const Array& left, const Array& right, const Array& made) {
    const int64_t n = left.size();
    return Merges(input<uint32_t>("byte_ids", byte_ids, {256}), input<uint32_t>("left", left, {n}),
                  input<uint32_t>("right", right, {n}), input<uint32_t>("made", made, {n}), size_t(n));
}

template <class Words>
Object encoder_of(Words words, std::vector<std::optional<string>> tokens, std::vector<AddedText> added = {}) {
    if (tokens.size() <= NARROW) return handle_of(new Encoder<uint16_t, Words>(std::move(words), tokens, added));
    return handle_of(new Encoder<uint32_t, Words>(std::move(words), tokens, added));
}

// (bytes, id or NOT_TAKEN, whether it is late)
std::vector<AddedText> added_of(const List& added) {
    std::vector<AddedText> found;
    for (int64_t i = 0; i < added.size(); i++) {
        auto token = argument<Tuple>(added[i], "added");
        found.push_back({argument<string>(token[0], "added"), uint32_t(argument<uint64_t>(token[1], "added")),
                         argument<bool>(token[2], "added")});
    }
    return found;
}

// whole: (bytes, id), words that are one token whatever is merged.
Object encoder(const Array& byte_ids, const Array& left, const Array& right, const Array& made, const List& tokens,
               const List& added, const string& pattern, const List& whole) {
    WholeWords words;
    for (int64_t i = 0; i < whole.size(); i++) {
        auto pair = argument<Tuple>(whole[i], "whole");
        words.add(argument<string>(pair[0], "whole"), uint32_t(argument<uint64_t>(pair[1], "whole")));
    }
    auto texts = texts_of(tokens);
    const uint32_t* id = input<uint32_t>("made", made, {ANY});
    std::vector<std::string_view> joined;
    for (int64_t i = 0; i < made.size(); i++)
        if (id[i] < texts.size() && texts[id[i]]) joined.push_back(*texts[id[i]]);
    return encoder_of(ByteWords{merges_of(byte_ids, left, right, made), pattern_named(pattern), words, Joins(joined)},
                      std::move(texts), added_of(added));
}

// codes, ids: the characters that are tokens. byte_ids and unknown: 2^32 - 1 for none. joined: texts, each of two
// characters or more, inside which no word may end.
Object character_encoder(const Array& codes, const Array& ids, const Array& byte_ids, uint64_t unknown, bool fuse,
                         bool blanks, bool split, const List& joined, const Array& left, const Array& right,
                         const Array& made, const List& tokens, const List& added) {
    CharacterRules rules;
    const int64_t n = codes.size();
    const uint32_t *code = input<uint32_t>("codes", codes, {n}), *id = input<uint32_t>("ids", ids, {n});
    for (int64_t i = 0; i < n; i++) rules.ids[code[i]] = id[i];
    const uint32_t* bytes = input<uint32_t>("byte_ids", byte_ids, {256});
    std::copy(bytes, bytes + 256, rules.byte_id);
    rules.unknown = uint32_t(unknown), rules.fuse = fuse, rules.blanks = blanks, rules.split = split;
    return encoder_of(CharacterWords{{rules, merges_of(byte_ids, left, right, made), HeldTexts(joined)}},
                      texts_of(tokens), added_of(added));
}

// Calls f with the encoder and a zero of its ids' type.
template <class F>
auto with(const Object& encoder, F f) {
    if (auto* narrow = held<Encoder<uint16_t>>(encoder)) return f(*narrow, uint16_t());
    if (auto* wide = held<Encoder<uint32_t>>(encoder)) return f(*wide, uint32_t());
    if (auto* narrow = held<Encoder<uint16_t, CharacterWords>>(encoder)) return f(*narrow, uint16_t());
    if (auto* wide = held<Encoder<uint32_t, CharacterWords>>(encoder)) return f(*wide, uint32_t());
    fail_type("encoder", encoder);
}

// places: of the added tokens that are looked for.
Object wanted(const Object& encoder, const Shape& places) {
    return with(encoder,
                [&](auto& of, auto) { return handle_of(new Wanted(of.wanted({places.begin(), places.end()}))); });
}

const Wanted* wanted_of(const Object& wanted) {
    if (wanted.is_none()) return nullptr;
    if (auto* found = held<Wanted>(wanted)) return found;
    fail_type("wanted", wanted);
}

Object encode(const Object& encoder, std::string_view text, const Object& wanted) {
    const Wanted* looked_for = wanted_of(wanted);
    return with(encoder, [&](auto& with_state, auto zero) -> Object {
        using T = decltype(zero);
        if (text.size() > SMALL_TEXT) {
            Sink<T> ids;
            ids.reserve(std::min(text.size(), std::max(text.size() / 3, UNTOUCHED)));   // so that they need not move
            without_gil([&] { with_state.encode(text, looked_for, ids); });
            return as_array(ids);
        }
        static thread_local Sink<T> scratch;          // then into an array of the right size
        scratch.count = 0;
        without_gil([&] { with_state.encode(text, looked_for, scratch); });
        return array_from(scratch.data, scratch.count);
    });
}

// All texts one after the other, and where each begins: (ids, (n + 1,) int64).
Tuple encode_batch(const Object& encoder, const List& list, const Object& wanted, uint64_t threads) {
    const Wanted* looked_for = wanted_of(wanted);
    return with(encoder, [&](auto& with_state, auto zero) {
        HeldTexts texts(list);
        auto offsets = fresh<int64_t>({int64_t(texts.size()) + 1});
        Sink<decltype(zero)> ids;
        without_gil([&] { with_state.encode_batch(texts, looked_for, threads, ids, offsets); });
        return tuple_of({as_array(ids), offsets});
    });
}

Object encode_words(const Object& encoder, const List& words) {
    return with(encoder, [&](auto& with_state, auto zero) {
        Sink<decltype(zero)> ids;
        with_state.encode_words(HeldTexts(words), ids);
        return as_array(ids);
    });
}

Object decode(const Object& encoder, const Array& ids) {
    const int64_t* id = input<int64_t>("ids", ids, {ANY});
    return with(encoder, [&](auto& of, auto) {
        std::vector<const string*> tokens(ids.size());  // each id is read once: another thread may change it
        size_t total = 0;
        for (size_t i = 0; i < tokens.size(); i++) {
            tokens[i] = &of.token(id[i]);
            total += tokens[i]->size();
        }
        auto [bytes, out] = new_bytes(total);
        for (const string* token : tokens) out = std::copy(token->begin(), token->end(), out);
        return bytes;
    });
}

int64_t cache_bytes(const Object& encoder) {
    return with(encoder, [](auto& of, auto) { return int64_t(of.cache_bytes()); });
}

// ---- counters of words ----

WordCounter& counter_of(const Object& counter) {
    if (auto* words = held<WordCounter>(counter)) return *words;
    fail_type("counter", counter);
}

Object word_counter(const string& pattern, const List& specials) {
    std::vector<string> texts;
    for (int64_t i = 0; i < specials.size(); i++) texts.push_back(argument<string>(specials[i], "specials"));
    return handle_of(new WordCounter(pattern_named(pattern), texts));
}

void count_words(const Object& counter, const List& list, uint64_t threads) {
    WordCounter& to = counter_of(counter);
    HeldTexts texts(list);
    without_gil([&] { to.add(texts, threads); });
}

// words: (bytes, how often).
void add_words(const Object& counter, const List& words) {
    for (int64_t i = 0; i < words.size(); i++) {
        auto pair = argument<Tuple>(words[i], "words");
        counter_of(counter).add_word(argument<string>(pair[0], "words"), argument<uint64_t>(pair[1], "words"));
    }
}

Tuple words(const Object& counter) {
    std::vector<Object> found;
    counter_of(counter).total().each([&](const char* word, size_t n, uint64_t count) {
        auto [bytes, out] = new_bytes(n);
        memcpy(out, word, n);
        found.push_back(tuple_of({bytes, int64_t(count)}));
    });
    return tuple_of(found);
}

int64_t distinct(const Object& counter) { return counter_of(counter).total().size(); }

// (n, 2) ids of the merges; `progress(done, total)` now and then.
Object learn(const Object& counter, const Array& byte_ids, uint64_t n_merges, bool textbook, const Object& progress) {
    WordCounter& from = counter_of(counter);
    const uint32_t* bytes = input<uint32_t>("byte_ids", byte_ids, {256});
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    const auto tell = [&](size_t done) { report(progress, done, n_merges); };
    without_gil([&] { merges = from.learn(bytes, n_merges, textbook, tell); });
    auto result = fresh<uint32_t>({int64_t(merges.size()), 2});
    if (!merges.empty()) memcpy(result.data, merges.data(), merges.size() * 8);
    return result;
}

const Register registered[] = {
    {"PATTERNS", tuple_of({string("gpt2"), string("cl100k"), string("o200k"), string("llama3"), string("qwen2"),
                           string("qwen3.5"), string("smollm"), string("deepseek")})},
    {"NOT_TAKEN", int64_t(NOT_TAKEN)},
    {"MAX_TOKENS", int64_t((1 << ID_BITS) - 1)},
    {"UNICODE_VERSION", string(UNICODE_VERSION)},
    {"word_starts(text, pattern)", &word_starts},
    {"abnormal_parts(text)", &abnormal_parts_of},
    {"encoder(byte_ids, left, right, made, tokens, added, pattern, whole)", &encoder},
    {"character_encoder(codes, ids, byte_ids, unknown, fuse, blanks, split, joined, left, right, made, tokens, added)",
     &character_encoder},
    {"wanted(encoder, places)", &wanted},
    {"encode(encoder, text, wanted)", &encode},
    {"encode_batch(encoder, texts, wanted, threads)", &encode_batch},
    {"encode_words(encoder, words)", &encode_words},
    {"decode(encoder, ids)", &decode},
    {"cache_bytes(encoder)", &cache_bytes},
    {"word_counter(pattern, specials)", &word_counter},
    {"count_words(counter, texts, threads)", &count_words},
    {"add_words(counter, words)", &add_words},
    {"words(counter)", &words},
    {"distinct(counter)", &distinct},
    {"learn(counter, byte_ids, n_merges, textbook, progress)", &learn},
};

}  // namespace
}  // namespace minillm::text

DEFINE_MODULE(MODULE, "Pre-tokenizer, BPE encoder and trainer")
