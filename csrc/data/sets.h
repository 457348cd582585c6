// Sets of shingles, and documents that belong together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace minillm::data {
// |A and B| / |A or B| of sorted sets; 0 for two empty ones.
inline double jaccard_of(const uint64_t* a, const uint64_t* a_end, const uint64_t* b, const uint64_t* b_end) {
    size_t total = size_t(a_end - a) + size_t(b_end - b), both = 0;
    while (a < a_end && b < b_end) {
        uint64_t x = *a, y = *b;
        both += x == y;
        a += x <= y;
        b += y <= x;
    }
    return total == 0 ? 0.0 : double(both) / double(total - both);
}

// Union-find: joins the trees of each pair in parent[n]; afterwards a root is the least member of its tree.
inline void unite(int64_t* parent, int64_t n, const int64_t* pair, int64_t pairs) {
    auto root = [&](int64_t i) {
        while (parent[i] != i) i = parent[i] = parent[parent[i]];           // path halving
        return i;
    };
    for (int64_t i = 0; i < pairs; i++) {
        int64_t a = root(pair[2 * i]), b = root(pair[2 * i + 1]);
        parent[std::max(a, b)] = std::min(a, b);
    }
    for (int64_t i = 0; i < n; i++) parent[i] = parent[parent[i]];  // parents come first, so this is the root
}
}  // namespace minillm::data
