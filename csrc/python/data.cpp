// The extension minillm._cpp.data: what deduplication does to every byte of a corpus (minillm/data/minhash.py).
//
// It is built once, for all CPUs: only the minima of a signature gain from wide vectors, and they choose at run time.
// Texts are shared among threads document by document, so results do not depend on how many there are.
#include "data/minhash.h"
#include "data/sets.h"
#include "python/texts.h"

namespace minillm::data {
namespace {

Minima minima_named(const std::string& isa) {
    for (auto& [name, function] : minima_here())
        if (isa == "auto" || isa == name) return function;
    throw py::value_error("this CPU or build has no instruction set '" + isa + "'");
}

Permutations checked(const Array<uint32_t>& a, const Array<uint32_t>& b, size_t n) {
    if (a.ndim() != 1 || b.ndim() != 1 || a.size() != b.size() || a.size() < 1)
        throw py::value_error("a and b must be vectors of one length, at least 1: got " + std::to_string(a.size()) +
                              " and " + std::to_string(b.size()));
    if (n < 1) throw py::value_error("n must be at least 1");
    return Permutations(a.data(), b.data(), size_t(a.size()));
}

// What `write` makes of each text's signature, (texts, width), and (texts,) int64 numbers of shingles.
template <class T, class F>
py::tuple each_signature(const py::list& list, size_t n, bool characters, const Permutations& permutations,
                         size_t width, size_t threads, const std::string& isa, F write) {
    HeldTexts texts(list);
    Minima minima = minima_named(isa);
    Array<T> found({texts.size(), width});
    Array<int64_t> counts(texts.size());
    T* rows = found.mutable_data();
    int64_t* count = counts.mutable_data();
    {
        py::gil_scoped_release release;
        sign_each(texts, n, characters, permutations, minima, std::max<size_t>(1, threads),
                  [&](size_t i, const std::vector<uint64_t>& shingles, const std::vector<uint32_t>& signature) {
                      write(signature.data(), rows + i * width);
                      count[i] = int64_t(shingles.size());
                  });
    }
    return py::make_tuple(found, counts);
}

// (texts, K) uint32 signatures.
py::tuple signatures(const py::list& texts, size_t n, bool characters, const Array<uint32_t>& a,
                     const Array<uint32_t>& b, size_t threads, const std::string& isa) {
    Permutations permutations = checked(a, b, n);
    const size_t K = permutations.count;
    return each_signature<uint32_t>(texts, n, characters, permutations, K, threads, isa,
                                    [K](const uint32_t* signature, uint32_t* row) { std::copy_n(signature, K, row); });
}

// (texts, bands) uint64 keys: the signatures are not kept.
py::tuple keys_of_bands(const py::list& texts, size_t n, bool characters, const Array<uint32_t>& a,
                        const Array<uint32_t>& b, size_t bands, size_t rows, size_t threads, const std::string& isa) {
    Permutations permutations = checked(a, b, n);
    if (bands < 1 || rows < 1 || bands * rows > permutations.count)
        throw py::value_error("bands x rows must be from 1 to the number of permutations");
    return each_signature<uint64_t>(
        texts, n, characters, permutations, bands, threads, isa,
        [=](const uint32_t* signature, uint64_t* keys) { band_keys(signature, bands, rows, keys); });
}

// Every text's distinct shingles, sorted, one text after the other, and where each begins: (total,), (texts + 1,).
py::tuple shingle_sets(const py::list& list, size_t n, bool characters, size_t threads) {
    HeldTexts texts(list);
    if (n < 1) throw py::value_error("n must be at least 1");
    Array<int64_t> offsets(texts.size() + 1);
    int64_t* offset = offsets.mutable_data();
    std::vector<std::vector<uint64_t>> sets(texts.size());
    offset[0] = 0;
    {
        py::gil_scoped_release release;
        std::vector<Shingler> shinglers(std::max<size_t>(1, threads));
        parallel(texts.size(), shinglers.size(), [&](size_t thread, size_t i) {
            shinglers[thread](texts[i].data(), texts[i].size(), n, characters, sets[i]);
            std::sort(sets[i].begin(), sets[i].end());
            sets[i].erase(std::unique(sets[i].begin(), sets[i].end()), sets[i].end());
        });
        for (size_t i = 0; i < sets.size(); i++) offset[i + 1] = offset[i] + int64_t(sets[i].size());
    }
    Array<uint64_t> all(offset[sets.size()]);
    for (size_t i = 0; i < sets.size(); i++) std::copy(sets[i].begin(), sets[i].end(), all.mutable_data() + offset[i]);
    return py::make_tuple(all, offsets);
}

// A copy, since what is checked must not change while other threads run Python.
std::vector<int64_t> own(const Array<int64_t>& a) { return {a.data(), a.data() + a.size()}; }

void check_range(const std::vector<int64_t>& pairs, int64_t n, const char* what) {
    for (int64_t i : pairs)
        if (i < 0 || i >= n)
            throw py::value_error("pairs: " + std::to_string(i) + " is not one of " + std::to_string(n) + what);
}

// (pairs,) float64 similarities of sets as `shingle_sets` gives them.
Array<double> jaccard(const Array<uint64_t>& hashes, const Array<int64_t>& offsets, const Array<int64_t>& pairs,
                      size_t threads) {
    if (hashes.ndim() != 1 || offsets.ndim() != 1 || offsets.size() < 1)
        throw py::value_error("hashes and offsets must be vectors, offsets with at least one element");
    if (pairs.ndim() != 2 || pairs.shape(1) != 2) throw py::value_error("pairs must be of shape (pairs, 2)");
    const std::vector<int64_t> offset = own(offsets), pair = own(pairs);
    int64_t sets = offsets.size() - 1;
    for (size_t i = 0; i < offset.size(); i++)
        if (offset[i] < (i ? offset[i - 1] : 0) || offset[i] > hashes.size())
            throw py::value_error("offsets must not fall, from 0 to the number of hashes");
    check_range(pair, sets, " sets");
    size_t count = size_t(pairs.shape(0));
    Array<double> found(count);
    const uint64_t* all = hashes.data();
    double* out = found.mutable_data();
    {
        py::gil_scoped_release release;
        parallel(count, std::max<size_t>(1, threads), [&](size_t, size_t i) {
            int64_t a = pair[2 * i], b = pair[2 * i + 1];
            out[i] = jaccard_of(all + offset[a], all + offset[a + 1], all + offset[b], all + offset[b + 1]);
        });
    }
    return found;
}

// Joins the trees of each pair in `parents` (n,), in place: afterwards a root is the least member of its tree.
void unite_pairs(Array<int64_t> parents, const Array<int64_t>& pairs) {
    if (parents.ndim() != 1 || pairs.ndim() != 2 || pairs.shape(1) != 2)
        throw py::value_error("parents must be a vector and pairs of shape (pairs, 2)");
    int64_t n = parents.size(), *result = parents.mutable_data();
    std::vector<int64_t> parent = own(parents);
    const std::vector<int64_t> pair = own(pairs);
    for (int64_t i = 0; i < n; i++)
        if (parent[i] < 0 || parent[i] > i) throw py::value_error("a parent must not be larger than its child");
    check_range(pair, n, " documents");
    {
        py::gil_scoped_release release;
        unite(parent.data(), n, pair.data(), pairs.shape(0));
    }
    std::copy(parent.begin(), parent.end(), result);
}

}  // namespace
}  // namespace minillm::data

PYBIND11_MODULE(data, m) {
    namespace py = pybind11;
    using namespace minillm::data;
    m.doc() = "Shingles, MinHash signatures, LSH bands, Jaccard similarity and union-find";
    std::vector<std::string> sets;
    for (auto& [name, function] : minima_here()) sets.push_back(name);
    m.attr("INSTRUCTION_SETS") = py::tuple(py::cast(sets));
    m.def("signatures", &signatures, py::arg("texts"), py::arg("n"), py::arg("characters"), py::arg("a").noconvert(),
          py::arg("b").noconvert(), py::arg("threads"), py::arg("isa") = "auto");
    m.def("band_keys", &keys_of_bands, py::arg("texts"), py::arg("n"), py::arg("characters"), py::arg("a").noconvert(),
          py::arg("b").noconvert(), py::arg("bands"), py::arg("rows"), py::arg("threads"), py::arg("isa") = "auto");
    m.def("shingle_sets", &shingle_sets, py::arg("texts"), py::arg("n"), py::arg("characters"), py::arg("threads"));
    m.def("jaccard", &jaccard, py::arg("hashes").noconvert(), py::arg("offsets").noconvert(),
          py::arg("pairs").noconvert(), py::arg("threads"));
    m.def("unite", &unite_pairs, py::arg("parents").noconvert(), py::arg("pairs").noconvert());
}
