// The launchers: how many blocks of which kernel. Compiled by nvcc for the GPU, by g++ for the emulator.
#include "cuda/attention/1_naive.cuh"
#include "cuda/attention/2_flash.cuh"
#include "cuda/attention/3_mma_backward.cuh"
#include "cuda/attention/repack.cuh"
#include "cuda/gpu/shared_limit.h"

namespace minillm::attention {
namespace {

// Call f with the smallest supported head size, as a constant, that holds HS; the rest is padded with zeros.
template <class F>
void by_head_size(int HS, F f) {
    if (HS <= 32) return f(std::integral_constant<int, 32>());
    if (HS <= 64) return f(std::integral_constant<int, 64>());
#ifndef SMALL
    if (HS <= 128) return f(std::integral_constant<int, 128>());
    if (HS <= 256) return f(std::integral_constant<int, 256>());
#endif
    throw std::runtime_error("a head must have at most 256 numbers: got " + std::to_string(HS));
}

template <class T>
void delta(const Backward<T>& a, const Sizes& n, stream_t stream) {
    launch(attention_delta<T>, grid_of(n, DELTA_WARPS), 32 * DELTA_WARPS, 0, stream, a, n);
}

template <class T>
void naive(const Forward<T>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [](auto) {});
    launch(naive_forward<T>, grid_of(n, NAIVE_WARPS), 32 * NAIVE_WARPS, 0, stream, a, n);
}
template <class T>
void naive(const Backward<T>& a, const Sizes& n, stream_t stream) {
    delta(a, n, stream);
    launch(naive_backward_keys<T>, grid_of(n, NAIVE_WARPS, n.group), 32 * NAIVE_WARPS, 0, stream, a, n);
    launch(naive_backward_queries<T>, grid_of(n, NAIVE_WARPS), 32 * NAIVE_WARPS, 0, stream, a, n);
}

// Can a block of this GPU hold these tiles? Where not, variant 1, which needs none, computes the same.
bool fits(size_t bytes) { return bytes <= gpu::shared_limit(gpu::capability()); }

template <class T>
void flash(const Forward<T>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [&](auto size) {
        using Tile = FlashTile<T, size>;
        if (!fits(Tile::FORWARD)) return naive(a, n, stream);
        launch(flash_forward<T, size>, grid_of(n, Tile::ROWS), FLASH_THREADS, Tile::FORWARD, stream, a, n);
    });
}
template <class T>
void flash(const Backward<T>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [&](auto size) {
        using Tile = FlashTile<T, size>;
        if (!fits(Tile::BACKWARD)) return naive(a, n, stream);
        delta(a, n, stream);
        const dim3 grid = grid_of(n, Tile::ROWS), grid_of_keys = grid_of(n, Tile::ROWS, n.group);
        launch(flash_backward<T, size, true>, grid_of_keys, FLASH_THREADS, Tile::BACKWARD, stream, a, n);
        launch(flash_backward<T, size, false>, grid, FLASH_THREADS, Tile::BACKWARD, stream, a, n);
    });
}

// The kernels of this variant want 16-byte chunks; `packed` sees to that.
template <class E>
void mma_kernels(const Forward<E>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [&](auto size) {
        using Tile = MmaForwardTile<size>;
        launch(mma_forward<E, size>, grid_in_groups(n, Tile::ROWS), Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
    });
}
template <class E>
void mma_kernels(const Backward<E>& a, const Sizes& n, stream_t stream) {
    delta(a, n, stream);
    by_head_size(n.HS, [&](auto size) {
        using Tile = MmaBackwardTile<size>;
        const dim3 grid = grid_in_groups(n, Tile::ROWS);
        launch(mma_backward<E, size, true>, grid, Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
        launch(mma_backward<E, size, false>, grid, Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
    });
}

// Variant 4 goes as far as Hopper's registers do; variant 3 takes the rest.
bool is_for_wgmma(const Sizes& n) { return n.HS <= 128; }

template <class E>
void wgmma_kernels(const Backward<E>& a, const Sizes& n, stream_t stream) {
    delta(a, n, stream);
    launch_wgmma(a, n, stream);
}

template <class E, class T>
void tensor_cores(Variant variant, const Forward<T>& a, const Sizes& n, stream_t stream) {
    const Sizes padded = with_padding(n);
    Packed<const E, T> q(a.q, n, stream), k(a.k, n, stream), v(a.v, n, stream);
    Packed<E, T> out(a.out, n, stream);
    const Forward<E> packed = {q.view, k.view, v.view, out.view, a.lse};
    if (variant == Variant::wgmma && is_for_wgmma(n)) launch_wgmma(packed, padded, stream);
    else mma_kernels(packed, padded, stream);
    out.write_back();
}
template <class E, class T>
void tensor_cores(Variant variant, const Backward<T>& a, const Sizes& n, stream_t stream) {
    const Sizes padded = with_padding(n);
    Packed<const E, T> q(a.q, n, stream), k(a.k, n, stream), v(a.v, n, stream), out(a.out, n, stream),
        dout(a.dout, n, stream);
    Packed<E, T> dq(a.dq, n, stream), dk(a.dk, n, stream), dv(a.dv, n, stream);
    const Backward<E> packed = {q.view, k.view, v.view, out.view, dout.view, a.lse, a.delta, dq.view, dk.view, dv.view};
    if (variant == Variant::wgmma && is_for_wgmma(n)) wgmma_kernels(packed, padded, stream);
    else mma_kernels(packed, padded, stream);
    dq.write_back();
    dk.write_back();
    dv.write_back();
}

// Which kernels take which numbers the bindings have checked; the last argument says the type.
template <class Arrays, class T>
void run(Variant variant, const Arrays& a, const Sizes& n, stream_t stream, T) {
    if constexpr (sizeof(T) >= 4) {
        if (variant == Variant::naive) return naive(a, n, stream);
        if (variant == Variant::flash) return flash(a, n, stream);
    }
    using E = std::conditional_t<std::is_same_v<T, Float16>, fp16, bf16>;
    if constexpr (!std::is_same_v<T, double>) {
        if (variant >= Variant::mma) return tensor_cores<E>(variant, a, n, stream);
    }
    throw std::runtime_error("this variant does not take these numbers");
}

}  // namespace

template <class T>
void forward(Variant variant, const Forward<T>& a, const Sizes& n, gpu::Stream stream) {
    if (variant == Variant::wgmma) gpu::check_hopper();
    if (n.heads() && n.T) run(variant, a, n, stream_t(stream), T());
}
template <class T>
void backward(Variant variant, const Backward<T>& a, const Sizes& n, gpu::Stream stream) {
    if (variant == Variant::wgmma) gpu::check_hopper();
    if (n.heads() && n.T) run(variant, a, n, stream_t(stream), T());
}

Variant best_variant(int bytes, int HS) {
    if (bytes > 2) return Variant::flash;
    return HS > 32 && HS <= 128 && gpu::capability() == 90 ? Variant::wgmma : Variant::mma;
}

#define INSTANTIATE(T)                                                            \
    template void forward(Variant, const Forward<T>&, const Sizes&, gpu::Stream); \
    template void backward(Variant, const Backward<T>&, const Sizes&, gpu::Stream);
INSTANTIATE(float)
#ifndef SMALL                               // the mutation test compiles many variants, and only what it needs
INSTANTIATE(double)
INSTANTIATE(Bfloat16)
INSTANTIATE(Float16)
#endif
}  // namespace minillm::attention
