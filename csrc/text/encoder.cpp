// Encoding with a vocabulary: which thread encodes which text with which state.
#include "text/encoder.h"

#include <pthread.h>

#include <mutex>

#include "text/characters.h"
#include "text/encode.h"

namespace minillm::text {
namespace {

template <class T, class Words>
void encode_with(State<T, Words>& state, const Wanted* wanted, std::string_view text, Sink<T>& ids) {
    if (!wanted) return state.encode(text.data(), text.size(), ids);
    auto take = [&](uint32_t id) { ids.append(&id, 1); };
    auto words = [&](const char* p, size_t n) { state.encode(p, n, ids); };
    wanted->early.split(
        text.data(), text.size(), [&](const char* p, size_t n) { wanted->late.split(p, n, words, take); }, take);
}

// Bounds of parts of about equal bytes, some for each thread.
std::vector<size_t> cut_evenly(const Texts& texts, size_t threads) {
    size_t total = 0, parts = threads > 1 ? 8 * threads : 1, seen = 0;
    for (std::string_view text : texts) total += text.size();
    std::vector<size_t> bounds{0};
    for (size_t i = 0; i < texts.size(); i++) {
        seen += texts[i].size();
        if (seen * parts >= total * bounds.size() && i + 1 < texts.size()) bounds.push_back(i + 1);
    }
    bounds.push_back(texts.size());
    return bounds;
}

// The lock of every encoder's idle states. A child made by fork has it free, whichever thread held it elsewhere.
std::mutex& guard() {
    static std::mutex& one = *new std::mutex;
    static const auto release = [] { one.unlock(); };
    [[maybe_unused]] static const int registered = pthread_atfork([] { one.lock(); }, +release, +release);
    return one;
}

// The parts' ids one after the other; offsets counted from where a part begins now count from the start.
template <class T>
void join(std::vector<Sink<T>>& sinks, const std::vector<size_t>& parts, int64_t* offsets, Sink<T>& all) {
    offsets[0] = 0;
    if (sinks.size() == 1) return all.swap(sinks[0]);
    size_t total = 0;
    for (Sink<T>& sink : sinks) total += sink.count;
    all.reserve(total);
    for (size_t part = 0; part < sinks.size(); part++) {
        for (size_t i = parts[part]; i < parts[part + 1]; i++) offsets[i + 1] += int64_t(all.count);
        all.append(sinks[part].data, sinks[part].count);
    }
}

}  // namespace

template <class T, class Words>
Encoder<T, Words>::Encoder(Words words, std::vector<std::optional<std::string>> tokens, std::vector<AddedText> added)
    : tokens(std::move(tokens)), added(std::move(added)), words(std::make_unique<Words>(std::move(words))) {
    if (this->tokens.size() >= (1u << ID_BITS)) throw std::invalid_argument("more than 2^21 tokens");
    give_back(borrow());
}

template <class T, class Words>
Encoder<T, Words>::~Encoder() = default;

// A state that starts with the vocabulary in its cache: most words of most texts are tokens.
template <class T, class Words>
std::unique_ptr<State<T, Words>> Encoder<T, Words>::borrow() {
    {
        std::lock_guard lock(guard());
        if (!idle.empty()) {
            auto state = std::move(idle.back());
            idle.pop_back();
            return state;
        }
    }
    auto state = std::make_unique<State<T, Words>>(*words, tokens.size());
    for (auto& token : tokens)
        if (token && !token->empty() && token->size() <= SHORT_WORD && words->takes(*token))
            state->remember(token->data(), token->size());
    return state;
}

template <class T, class Words>
void Encoder<T, Words>::give_back(std::unique_ptr<State<T, Words>> state) {
    std::lock_guard lock(guard());
    idle.push_back(std::move(state));
}

template <class T, class Words>
Wanted Encoder<T, Words>::wanted(const std::vector<size_t>& places) const {
    Wanted found;
    for (size_t i : places) (added.at(i).late ? found.late : found.early).add(added[i].text, added[i].id);
    found.early.finish(), found.late.finish();
    return found;
}

template <class T, class Words>
void Encoder<T, Words>::encode(std::string_view text, const Wanted* wanted, Sink<T>& ids) {
    auto state = borrow();
    encode_with(*state, wanted, text, ids);
    give_back(std::move(state));
}

template <class T, class Words>
void Encoder<T, Words>::encode_batch(const Texts& texts, const Wanted* wanted, size_t threads, Sink<T>& ids,
                                     int64_t* offsets) {
    std::vector<size_t> parts = cut_evenly(texts, threads);
    std::vector<Sink<T>> sinks(parts.size() - 1);
    std::vector<std::unique_ptr<State<T, Words>>> states(threads);
    parallel(sinks.size(), threads, [&](size_t thread, size_t part) {
        if (!states[thread]) states[thread] = borrow();
        for (size_t i = parts[part]; i < parts[part + 1]; i++) {
            encode_with(*states[thread], wanted, texts[i], sinks[part]);
            offsets[i + 1] = int64_t(sinks[part].count);
        }
    });
    for (auto& state : states)
        if (state) give_back(std::move(state));
    join(sinks, parts, offsets, ids);
}

template <class T, class Words>
void Encoder<T, Words>::encode_words(const Texts& words, Sink<T>& ids) {
    auto state = borrow();
    for (std::string_view word : words) state->encode_one(word.data(), word.size(), ids);
    give_back(std::move(state));
}

template <class T, class Words>
size_t Encoder<T, Words>::cache_bytes() {
    std::lock_guard lock(guard());
    size_t total = 0;
    for (auto& state : idle) total += state->bytes();
    return total;
}

template class Encoder<uint16_t, ByteWords>;
template class Encoder<uint32_t, ByteWords>;
template class Encoder<uint16_t, CharacterWords>;
template class Encoder<uint32_t, CharacterWords>;
}  // namespace minillm::text
