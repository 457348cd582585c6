// Cooperative groups: blocks, tiles of a warp, the lanes that are together, and whole grids.
#pragma once

#include "cuda_runtime.h"

extern "C" void minillm_cuda_barrier(int which, int threads);
extern "C" void minillm_cuda_grid_barrier();

namespace cooperative_groups {
namespace own {
MINILLM_INLINE unsigned thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
MINILLM_INLINE unsigned threads() { return blockDim.x * blockDim.y * blockDim.z; }
MINILLM_INLINE unsigned lane() { return thread() % 32; }
// The n-th set bit of a mask.
inline int bit(unsigned mask, unsigned n) {
    while (n--) mask &= mask - 1;
    return __builtin_ctz(mask);
}
}  // namespace own

// Lanes of one warp: a tile, or those that came together.
class thread_group {
protected:
    unsigned mask, threads, meta, metas;    // threads 0: the whole block; meta: which of how many such groups

public:
    thread_group(unsigned mask, unsigned threads, unsigned meta, unsigned metas)
        : mask(mask), threads(threads), meta(meta), metas(metas) {}
    MINILLM_INLINE unsigned long long size() const { return threads ? threads : own::threads(); }
    MINILLM_INLINE unsigned long long num_threads() const { return size(); }
    MINILLM_INLINE unsigned long long thread_rank() const {
        return threads ? __builtin_popcount(mask & ((1u << own::lane()) - 1)) : own::thread();
    }
    MINILLM_INLINE void sync() const {
        if (threads) minillm_cuda_syncwarp(mask);
        else __syncthreads();
    }
    MINILLM_INLINE unsigned long long meta_group_rank() const { return meta; }
    MINILLM_INLINE unsigned long long meta_group_size() const { return metas; }
    MINILLM_INLINE unsigned minillm_mask() const { return mask; }
};

class thread_block : public thread_group {
public:
    thread_block() : thread_group(0, 0, 0, 1) {}
    MINILLM_INLINE static void sync() { __syncthreads(); }
    MINILLM_INLINE static unsigned thread_rank() { return own::thread(); }
    MINILLM_INLINE static unsigned size() { return own::threads(); }
    MINILLM_INLINE static unsigned num_threads() { return own::threads(); }
    MINILLM_INLINE static dim3 group_index() { return blockIdx; }
    MINILLM_INLINE static dim3 thread_index() { return threadIdx; }
    MINILLM_INLINE static dim3 dim_threads() { return blockDim; }
    MINILLM_INLINE static dim3 group_dim() { return blockDim; }
};
MINILLM_INLINE thread_block this_thread_block() { return {}; }

// A group within a warp: its members talk by shuffles and votes. Ranks become lanes by the mask.
class warp_group : public thread_group {
public:
    using thread_group::thread_group;
    template <class T>
    MINILLM_INLINE T shfl(T x, int rank) const {
        return __shfl_sync(mask, x, own::bit(mask, unsigned(rank) % threads));
    }
    template <class T>
    MINILLM_INLINE T shfl_down(T x, unsigned by) const {
        const unsigned rank = unsigned(thread_rank()), from = rank + by < threads ? rank + by : rank;
        return __shfl_sync(mask, x, own::bit(mask, from));
    }
    template <class T>
    MINILLM_INLINE T shfl_up(T x, unsigned by) const {
        const unsigned rank = unsigned(thread_rank()), from = rank >= by ? rank - by : rank;
        return __shfl_sync(mask, x, own::bit(mask, from));
    }
    template <class T>
    MINILLM_INLINE T shfl_xor(T x, unsigned bits) const {
        const unsigned rank = unsigned(thread_rank()), from = (rank ^ bits) < threads ? rank ^ bits : rank;
        return __shfl_sync(mask, x, own::bit(mask, from));
    }
    MINILLM_INLINE int any(int vote) const { return __any_sync(mask, vote); }
    MINILLM_INLINE int all(int vote) const { return __all_sync(mask, vote); }
    MINILLM_INLINE unsigned ballot(int vote) const { return ranks(__ballot_sync(mask, vote)); }
    template <class T>
    MINILLM_INLINE unsigned match_any(T x) const {
        return ranks(__match_any_sync(mask, x));
    }
    template <class T>
    MINILLM_INLINE unsigned match_all(T x, int& same) const {
        return ranks(__match_all_sync(mask, x, &same));
    }

private:
    unsigned ranks(unsigned lanes) const {
        unsigned out = 0;
        for (unsigned rank = 0; rank < threads; rank++) out |= (lanes >> own::bit(mask, rank) & 1) << rank;
        return out;
    }
};

template <unsigned Size, class Parent = void>
class thread_block_tile : public warp_group {
    static_assert(Size >= 1 && Size <= 32 && !(Size & (Size - 1)),
                  "the emulator's tiles have 1, 2, 4, 8, 16 or 32 threads");

public:
    thread_block_tile(unsigned meta, unsigned metas)
        : warp_group((Size == 32 ? ~0u : (1u << Size % 32) - 1) << own::lane() / Size * Size, Size, meta, metas) {}
    template <class Other>
    thread_block_tile(const thread_block_tile<Size, Other>& same) : warp_group(same) {}
    MINILLM_INLINE static constexpr unsigned size() { return Size; }
    MINILLM_INLINE static constexpr unsigned num_threads() { return Size; }
    MINILLM_INLINE static unsigned thread_rank() { return own::lane() % Size; }
};
class coalesced_group : public warp_group {
public:
    explicit coalesced_group(unsigned mask) : warp_group(mask, __builtin_popcount(mask), 0, 1) {}
};
MINILLM_INLINE coalesced_group coalesced_threads() { return coalesced_group(__activemask()); }

template <unsigned Size, class Parent>
MINILLM_INLINE thread_block_tile<Size, Parent> tiled_partition(const Parent& parent) {
    const unsigned within = unsigned(parent.size());
    return {unsigned(parent.thread_rank()) / Size, (within + Size - 1) / Size};
}
MINILLM_INLINE warp_group tiled_partition(const thread_group& parent, unsigned size) {
    const unsigned first = own::lane() / size * size;
    return {(size == 32 ? ~0u : (1u << size) - 1) << first, size, unsigned(parent.thread_rank()) / size,
            unsigned(parent.size()) / size};
}
template <class Group>
MINILLM_INLINE coalesced_group binary_partition(const Group& group, bool which) {
    const unsigned yes = __ballot_sync(group.minillm_mask(), which);
    return coalesced_group(which ? yes : group.minillm_mask() & ~yes);
}
template <class Group, class T>
MINILLM_INLINE coalesced_group labeled_partition(const Group& group, T label) {
    return coalesced_group(__match_any_sync(group.minillm_mask(), label));
}

class grid_group {
public:
    MINILLM_INLINE static void sync() { minillm_cuda_grid_barrier(); }
    MINILLM_INLINE static bool is_valid() { return true; }
    MINILLM_INLINE static unsigned long long num_blocks() {
        return static_cast<unsigned long long>(gridDim.x) * gridDim.y * gridDim.z;
    }
    MINILLM_INLINE static unsigned long long block_rank() {
        return blockIdx.x + static_cast<unsigned long long>(gridDim.x) * (blockIdx.y + gridDim.y * blockIdx.z);
    }
    MINILLM_INLINE static unsigned long long size() { return num_blocks() * own::threads(); }
    MINILLM_INLINE static unsigned long long num_threads() { return size(); }
    MINILLM_INLINE static unsigned long long thread_rank() { return block_rank() * own::threads() + own::thread(); }
    MINILLM_INLINE static dim3 group_dim() { return gridDim; }
    MINILLM_INLINE static dim3 dim_blocks() { return gridDim; }
    MINILLM_INLINE static dim3 block_index() { return blockIdx; }
};
MINILLM_INLINE grid_group this_grid() { return {}; }

template <class Group>
MINILLM_INLINE void sync(const Group& group) {
    group.sync();
}
template <class Group>
MINILLM_INLINE void wait(const Group& group) {
    group.sync();
}
// The threads of a group copy together; the bytes count as written from here on, the group waits in wait().
template <class Group, class Bytes>
MINILLM_INLINE void memcpy_async(const Group& group, void* to, const void* from, Bytes bytes) {
    const size_t n = static_cast<size_t>(bytes), step = group.size();
    for (size_t i = group.thread_rank(); i < n / 4; i += step)
        static_cast<unsigned*>(to)[i] = static_cast<const unsigned*>(from)[i];
    for (size_t i = n / 4 * 4 + group.thread_rank(); i < n; i += step)
        static_cast<char*>(to)[i] = static_cast<const char*>(from)[i];
}

template <class T = void>
struct plus {
    template <class A>
    A operator()(A a, A b) const {
        return a + b;
    }
};
template <class T = void>
struct less {
    template <class A>
    A operator()(A a, A b) const {
        return b < a ? b : a;
    }
};
template <class T = void>
struct greater {
    template <class A>
    A operator()(A a, A b) const {
        return a < b ? b : a;
    }
};
template <class T = void>
struct bit_and {
    template <class A>
    A operator()(A a, A b) const {
        return a & b;
    }
};
template <class T = void>
struct bit_or {
    template <class A>
    A operator()(A a, A b) const {
        return a | b;
    }
};
template <class T = void>
struct bit_xor {
    template <class A>
    A operator()(A a, A b) const {
        return a ^ b;
    }
};

// Every thread gets op over the values of all, in a tree whose shape depends on the group's size alone.
template <class Group, class T, class Op>
MINILLM_INLINE T reduce(const Group& group, T x, Op op) {
    const unsigned n = unsigned(group.size()), rank = unsigned(group.thread_rank());
    for (unsigned by = 1; by < n; by *= 2) {
        const T other = group.shfl_down(x, by);
        if (rank + by < n) x = op(x, other);
    }
    return group.shfl(x, 0);
}
template <class Group, class T, class Op>
MINILLM_INLINE T inclusive_scan(const Group& group, T x, Op op) {
    const unsigned n = unsigned(group.size()), rank = unsigned(group.thread_rank());
    for (unsigned by = 1; by < n; by *= 2) {
        const T other = group.shfl_up(x, by);
        if (rank >= by) x = op(other, x);
    }
    return x;
}
template <class Group, class T>
MINILLM_INLINE T inclusive_scan(const Group& group, T x) {
    return inclusive_scan(group, x, plus<T>());
}
template <class Group, class T>
MINILLM_INLINE T exclusive_scan(const Group& group, T x) {
    const T before = group.shfl_up(inclusive_scan(group, x, plus<T>()), 1);
    return group.thread_rank() ? before : T(0);
}
template <class Group, class F>
MINILLM_INLINE void invoke_one(const Group& group, F f) {
    if (group.thread_rank() == 0) f();
}
}  // namespace cooperative_groups
