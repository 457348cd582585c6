// A vocabulary that encodes and decodes, for minillm/tokenizer/fast.py.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "text/merge.h"
#include "text/parallel.h"
#include "text/patterns.h"
#include "text/pool.h"
#include "text/specials.h"

namespace minillm::text {
struct ByteWords;                             // encode.h: how words are cut and merged
struct CharacterWords;                        // characters.h
template <class T, class Words>
class State;

// An added token; those that are late are looked for where no other was found.
struct AddedText {
    std::string text;
    uint32_t id;
    bool late;
};

// Those that are looked for, from `wanted`: it takes time where they are many, and mostly the same are asked for again.
struct Wanted { Specials early, late; };

template <class T, class Words = ByteWords>
class Encoder {
    std::vector<std::optional<std::string>> tokens;
    std::vector<AddedText> added;
    std::unique_ptr<Words> words;
    std::vector<std::unique_ptr<State<T, Words>>> idle;

    std::unique_ptr<State<T, Words>> borrow();
    void give_back(std::unique_ptr<State<T, Words>> state);

public:
    Encoder(Words words, std::vector<std::optional<std::string>> tokens, std::vector<AddedText> added);
    ~Encoder();

    // places: in `added`.
    Wanted wanted(const std::vector<size_t>& places) const;
    // The ids of a text; wanted: null for none.
    void encode(std::string_view text, const Wanted* wanted, Sink<T>& ids);
    // Those of all texts one after the other, and in texts.size() + 1 offsets where each begins.
    void encode_batch(const Texts& texts, const Wanted* wanted, size_t threads, Sink<T>& ids, int64_t* offsets);
    void encode_words(const Texts& words, Sink<T>& ids);
    size_t cache_bytes();

    const std::string& token(int64_t id) const {
        if (id < 0 || size_t(id) >= tokens.size() || !tokens[id])
            throw std::invalid_argument("id " + std::to_string(id) + " is not in the vocabulary of " +
                                        std::to_string(tokens.size()));
        return *tokens[id];
    }
};
}  // namespace minillm::text
