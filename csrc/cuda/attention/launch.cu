// The launchers: how many blocks of which kernel. Compiled by nvcc for the GPU, by g++ for the emulator.
#include "attention_1_naive.cuh"
#include "attention_2_flash.cuh"
#include "attention_3_mma_backward.cuh"
#include "conformance.cuh"
#include "launch.h"
#include "repack.cuh"

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
    launch(naive_backward_keys<T>, grid_of(n, NAIVE_WARPS), 32 * NAIVE_WARPS, 0, stream, a, n);
    launch(naive_backward_queries<T>, grid_of(n, NAIVE_WARPS), 32 * NAIVE_WARPS, 0, stream, a, n);
}

template <class T>
void flash(const Forward<T>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [&](auto size) {
        using Tile = FlashTile<T, size>;
        launch(flash_forward<T, size>, grid_of(n, Tile::ROWS), FLASH_THREADS, Tile::FORWARD, stream, a, n);
    });
}
template <class T>
void flash(const Backward<T>& a, const Sizes& n, stream_t stream) {
    delta(a, n, stream);
    by_head_size(n.HS, [&](auto size) {
        using Tile = FlashTile<T, size>;
        const dim3 grid = grid_of(n, Tile::ROWS);
        launch(flash_backward<T, size, true>, grid, FLASH_THREADS, Tile::BACKWARD, stream, a, n);
        launch(flash_backward<T, size, false>, grid, FLASH_THREADS, Tile::BACKWARD, stream, a, n);
    });
}

// The kernels of this rung want 16-byte chunks; `packed` sees to that.
template <class E>
void mma_kernels(const Forward<E>& a, const Sizes& n, stream_t stream) {
    by_head_size(n.HS, [&](auto size) {
        using Tile = MmaForwardTile<size>;
        launch(mma_forward<E, size>, grid_of(n, Tile::ROWS), Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
    });
}
template <class E>
void mma_kernels(const Backward<E>& a, const Sizes& n, stream_t stream) {
    delta(a, n, stream);
    by_head_size(n.HS, [&](auto size) {
        using Tile = MmaBackwardTile<size>;
        const dim3 grid = grid_of(n, Tile::ROWS);
        launch(mma_backward<E, size, true>, grid, Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
        launch(mma_backward<E, size, false>, grid, Tile::THREADS, Tile::SHARED_BYTES, stream, a, n);
    });
}

// Rung 4 goes as far as Hopper's registers do; rung 3 takes the rest.
bool is_for_wgmma(const Sizes& n) { return n.HS <= 128; }

// Its instructions are one generation's alone.
void check_hopper() {
    if (capability() != 90)
        throw std::runtime_error("Hopper's instructions need a GPU of compute capability 9.0 (H100, H200): this has " +
                                 std::to_string(capability() / 10) + "." + std::to_string(capability() % 10));
}

template <class E, class T>
void tensor_cores(Rung rung, const Forward<T>& a, const Sizes& n, stream_t stream) {
    const Sizes padded = with_padding(n);
    Packed<const E, T> q(a.q, n, stream), k(a.k, n, stream), v(a.v, n, stream);
    Packed<E, T> out(a.out, n, stream);
    const Forward<E> packed = {q.view, k.view, v.view, out.view, a.lse};
    if (rung == Rung::wgmma && is_for_wgmma(n)) launch_wgmma(packed, padded, stream);
    else mma_kernels(packed, padded, stream);
    out.write_back();
}
template <class E, class T>
void tensor_cores(Rung, const Backward<T>& a, const Sizes& n, stream_t stream) {
    const Sizes padded = with_padding(n);
    Packed<const E, T> q(a.q, n, stream), k(a.k, n, stream), v(a.v, n, stream), out(a.out, n, stream),
        dout(a.dout, n, stream);
    Packed<E, T> dq(a.dq, n, stream), dk(a.dk, n, stream), dv(a.dv, n, stream);
    mma_kernels(Backward<E>{q.view, k.view, v.view, out.view, dout.view, a.lse, a.delta, dq.view, dk.view, dv.view},
                padded, stream);
    dq.write_back();
    dk.write_back();
    dv.write_back();
}

template <class Arrays>
void run(Rung rung, const Arrays& a, const Sizes& n, stream_t stream, float) {
    if (rung == Rung::naive) naive(a, n, stream);
    else if (rung == Rung::flash) flash(a, n, stream);
    else tensor_cores<bf16>(rung, a, n, stream);
}
template <class Arrays>
void run(Rung rung, const Arrays& a, const Sizes& n, stream_t stream, double) {
    if (rung >= Rung::mma) throw std::runtime_error("the tensor cores' rungs do not take float64");
    rung == Rung::naive ? naive(a, n, stream) : flash(a, n, stream);
}
template <class Arrays>
void run(Rung rung, const Arrays& a, const Sizes& n, stream_t stream, Bfloat16) {
    if (rung < Rung::mma) throw std::runtime_error("only the tensor cores' rungs take bfloat16");
    tensor_cores<bf16>(rung, a, n, stream);
}
template <class Arrays>
void run(Rung rung, const Arrays& a, const Sizes& n, stream_t stream, Float16) {
    if (rung < Rung::mma) throw std::runtime_error("only the tensor cores' rungs take float16");
    tensor_cores<fp16>(rung, a, n, stream);
}

}  // namespace

namespace gpu {
template <class T>
void forward(Rung rung, const Forward<T>& a, const Sizes& n, Stream stream) {
    if (rung == Rung::wgmma) check_hopper();
    if (n.heads() && n.T) run(rung, a, n, stream_t(stream), T());
}
template <class T>
void backward(Rung rung, const Backward<T>& a, const Sizes& n, Stream stream) {
    if (n.heads() && n.T) run(rung, a, n, stream_t(stream), T());
}

Rung best_rung(int bytes, int HS) {
    if (bytes > 2) return Rung::flash;
    return HS > 32 && HS <= 128 && capability() == 90 ? Rung::wgmma : Rung::mma;
}

void* allocate(size_t bytes, Stream stream) { return ::allocate(bytes, stream_t(stream)); }
void release(void* data, Stream stream) { ::release(data, stream_t(stream)); }
void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    ::copy_in(device, host, bytes, stream_t(stream));
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    ::copy_out(host, device, bytes, stream_t(stream));
}
void poison(void* device, size_t bytes, Stream stream) { ::poison(device, bytes, stream_t(stream)); }
void synchronize(Stream stream) { ::synchronize(stream_t(stream)); }
std::string driver_problem() { return ::driver_problem(); }
int current_device() { return ::current_device(); }
int64_t peak_bytes() { return ::peak_bytes(); }

void conformance(int instruction, const uint32_t* in, uint32_t* out) {
    const size_t in_bytes = 32 * 12 * 4, out_bytes = 32 * WORDS_OUT * 4;
    auto* d_in = static_cast<uint32_t*>(::allocate(in_bytes, nullptr));
    auto* d_out = static_cast<uint32_t*>(::allocate(out_bytes, nullptr));
    ::copy_in(d_in, in, in_bytes, nullptr);
    ::copy_in(d_out, std::string(out_bytes, '\0').data(), out_bytes, nullptr);
    launch(conformance_kernel, dim3(1), 32, 32 * 16, stream_t(nullptr), instruction, d_in, d_out);
    ::copy_out(out, d_out, out_bytes, nullptr);
    ::synchronize(nullptr);
    ::release(d_in, nullptr);
    ::release(d_out, nullptr);
}

void hopper_conformance(int instruction, const uint32_t* in, uint32_t* out) {
    check_hopper();
    ::hopper_conformance(instruction, in, out);
}
int capability() { return ::capability(); }

#define INSTANTIATE(T)                                                       \
    template void forward(Rung, const Forward<T>&, const Sizes&, Stream);    \
    template void backward(Rung, const Backward<T>&, const Sizes&, Stream);
INSTANTIATE(float)
#ifndef SMALL                               // the mutation test compiles many variants, and only what it needs
INSTANTIATE(double)
INSTANTIATE(Bfloat16)
INSTANTIATE(Float16)
#endif
}  // namespace gpu
