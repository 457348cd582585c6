// The extension minillm._cpp.data: what deduplication does to every byte of a corpus (minillm/data/minhash.py).
//
// It is built once, for all CPUs: only the minima of a signature gain from wide vectors, and they choose at run time.
// Texts are shared among threads document by document, so results do not depend on how many there are.
#include "data/minhash.h"
#include "data/sets.h"
#include "python/texts.h"

namespace minillm::data {
namespace {

Minima minima_named(const string& isa) {
    for (auto& [name, function] : minima_here())
        if (isa == "auto" || isa == name) return function;
    fail("this CPU or build has no instruction set '", isa, "'");
}

Permutations checked(const Array& a, const Array& b, uint64_t n) {
    const uint32_t *pa = input<uint32_t>("a", a, {ANY}), *pb = input<uint32_t>("b", b, {ANY});
    if (a.size() != b.size() || a.size() < 1)
        fail("a and b must be vectors of one length, at least 1: got ", a.size(), " and ", b.size());
    if (n < 1) fail("n must be at least 1");
    return Permutations(pa, pb, size_t(a.size()));
}

// What `write` makes of each text's signature, (texts, width), and (texts,) int64 numbers of shingles.
template <class T, class F>
Tuple each_signature(const List& list, uint64_t n, bool characters, const Permutations& permutations, int64_t width,
                     uint64_t threads, const string& isa, F write) {
    HeldTexts texts(list);
    Minima minima = minima_named(isa);
    auto found = fresh<T>({int64_t(texts.size()), width});
    auto counts = fresh<int64_t>({int64_t(texts.size())});
    without_gil([&] {
        sign_each(texts, n, characters, permutations, minima, std::max<size_t>(1, threads),
                  [&](size_t i, const std::vector<uint64_t>& shingles, const std::vector<uint32_t>& signature) {
                      write(signature.data(), found.data + i * width);
                      counts.data[i] = int64_t(shingles.size());
                  });
    });
    return tuple_of({found, counts});
}

// (texts, K) uint32 signatures.
Tuple signatures(const List& texts, uint64_t n, bool characters, const Array& a, const Array& b, uint64_t threads,
                 const string& isa) {
    Permutations permutations = checked(a, b, n);
    const size_t K = permutations.count;
    return each_signature<uint32_t>(texts, n, characters, permutations, K, threads, isa,
                                    [K](const uint32_t* signature, uint32_t* row) { std::copy_n(signature, K, row); });
}

// (texts, bands) uint64 keys: the signatures are not kept.
Tuple keys_of_bands(const List& texts, uint64_t n, bool characters, const Array& a, const Array& b, uint64_t bands,
                    uint64_t rows, uint64_t threads, const string& isa) {
    Permutations permutations = checked(a, b, n);
    if (bands < 1 || rows < 1 || bands > permutations.count / rows)
        fail("bands x rows must be from 1 to the number of permutations");
    return each_signature<uint64_t>(
        texts, n, characters, permutations, bands, threads, isa,
        [=](const uint32_t* signature, uint64_t* keys) { band_keys(signature, bands, rows, keys); });
}

// Every text's distinct shingles, sorted, one text after the other, and where each begins: (total,), (texts + 1,).
Tuple shingle_sets(const List& list, uint64_t n, bool characters, uint64_t threads) {
    HeldTexts texts(list);
    if (n < 1) fail("n must be at least 1");
    auto offset = fresh<int64_t>({int64_t(texts.size()) + 1});
    std::vector<std::vector<uint64_t>> sets(texts.size());
    offset.data[0] = 0;
    without_gil([&] {
        std::vector<Shingler> shinglers(std::max<size_t>(1, threads));
        parallel(texts.size(), shinglers.size(), [&](size_t thread, size_t i) {
            shinglers[thread](texts[i].data(), texts[i].size(), n, characters, sets[i]);
            std::sort(sets[i].begin(), sets[i].end());
            sets[i].erase(std::unique(sets[i].begin(), sets[i].end()), sets[i].end());
        });
        for (size_t i = 0; i < sets.size(); i++) offset.data[i + 1] = offset.data[i] + int64_t(sets[i].size());
    });
    auto all = fresh<uint64_t>({offset.data[sets.size()]});
    for (size_t i = 0; i < sets.size(); i++) std::copy(sets[i].begin(), sets[i].end(), all.data + offset.data[i]);
    return tuple_of({all, offset});
}

// A copy, since what is checked must not change while other threads run Python.
std::vector<int64_t> own(const char* name, const Array& a, const Shape& shape) {
    const int64_t* p = input<int64_t>(name, a, shape);
    return {p, p + a.size()};
}

std::vector<int64_t> own_pairs(const Array& pairs, int64_t n, const char* what) {
    auto copy = own("pairs", pairs, {ANY, 2});
    for (int64_t i : copy)
        if (i < 0 || i >= n) fail("pairs: ", i, " is not one of ", n, what);
    return copy;
}

// (pairs,) float64 similarities of sets as `shingle_sets` gives them.
Object jaccard(const Array& hashes, const Array& offsets, const Array& pairs, uint64_t threads) {
    const uint64_t* all = input<uint64_t>("hashes", hashes, {ANY});
    const auto offset = own("offsets", offsets, {ANY});
    const int64_t sets = offsets.size() - 1;
    if (sets < 0) fail("offsets must have at least one element");
    for (int64_t i = 0; i <= sets; i++)
        if (offset[i] < (i ? offset[i - 1] : 0) || offset[i] > hashes.size())
            fail("offsets must not fall, from 0 to the number of hashes");
    const auto pair = own_pairs(pairs, sets, " sets");
    auto found = fresh<double>({pairs.shape[0]});
    without_gil([&] {
        parallel(pairs.shape[0], std::max<size_t>(1, threads), [&](size_t, size_t i) {
            int64_t a = pair[2 * i], b = pair[2 * i + 1];
            found.data[i] = jaccard_of(all + offset[a], all + offset[a + 1], all + offset[b], all + offset[b + 1]);
        });
    });
    return found;
}

// Joins the trees of each pair in `parents` (n,), in place: afterwards a root is the least member of its tree.
void unite_pairs(const Array& parents, const Array& pairs) {
    int64_t* result = in_place<int64_t>("parents", parents, {ANY});
    const int64_t n = parents.size();
    auto parent = own("parents", parents, {ANY});
    const auto pair = own_pairs(pairs, n, " documents");
    for (int64_t i = 0; i < n; i++)
        if (parent[i] < 0 || parent[i] > i) fail("a parent must not be larger than its child");
    without_gil([&] { unite(parent.data(), n, pair.data(), pairs.shape[0]); });
    std::copy(parent.begin(), parent.end(), result);
}

Tuple instruction_sets() {
    std::vector<Object> names;
    for (auto& [name, function] : minima_here()) names.push_back(name);
    return tuple_of(names);
}

const Register registered[] = {
    {"INSTRUCTION_SETS", instruction_sets()},
    {"signatures(texts, n, characters, a, b, threads, isa='auto')", &signatures},
    {"band_keys(texts, n, characters, a, b, bands, rows, threads, isa='auto')", &keys_of_bands},
    {"shingle_sets(texts, n, characters, threads)", &shingle_sets},
    {"jaccard(hashes, offsets, pairs, threads)", &jaccard},
    {"unite(parents, pairs)", &unite_pairs},
};

}  // namespace
}  // namespace minillm::data

MINILLM_INIT_OF(MODULE, "Shingles, MinHash signatures, LSH bands, Jaccard similarity and union-find")
