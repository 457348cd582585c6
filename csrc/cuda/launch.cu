// The launchers: how many blocks of which kernel. Compiled by nvcc for the GPU, by g++ for the emulator.
#include "attention_1_naive.cuh"
#include "attention_2_flash.cuh"

namespace {

// Blocks of `rows` rows: heads along x, which may be 2^31 - 1 long; rows along y, which ends at 65,535.
dim3 grid_of(const Sizes& n, int rows) {
    const int64_t blocks = (n.T + int64_t(rows) - 1) / rows;
    if (n.heads() > 0x7fffffff) throw std::runtime_error("B * n_head must be below 2^31: got " + std::to_string(n.heads()));
    if (blocks > 65535) throw std::runtime_error("T must be at most " + std::to_string(65535LL * rows) + ": got " + std::to_string(n.T));
    return dim3(unsigned(n.heads()), unsigned(blocks));
}

// Call f with the smallest supported head size, as a constant, that holds HS; the rest is padded with zeros.
template <class F>
void by_head_size(int HS, F f) {
    if (HS <= 32) return f(std::integral_constant<int, 32>());
    if (HS <= 64) return f(std::integral_constant<int, 64>());
    if (HS <= 128) return f(std::integral_constant<int, 128>());
    if (HS <= 256) return f(std::integral_constant<int, 256>());
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

}  // namespace

namespace gpu {
template <class T>
void forward(Rung rung, const Forward<T>& a, const Sizes& n, Stream stream) {
    if (n.heads() == 0 || n.T == 0) return;
    rung == Rung::naive ? naive(a, n, stream_t(stream)) : flash(a, n, stream_t(stream));
}
template <class T>
void backward(Rung rung, const Backward<T>& a, const Sizes& n, Stream stream) {
    if (n.heads() == 0 || n.T == 0) return;
    rung == Rung::naive ? naive(a, n, stream_t(stream)) : flash(a, n, stream_t(stream));
}

void* allocate(size_t bytes, Stream stream) { return ::allocate(bytes, stream_t(stream)); }
void release(void* data, Stream stream) { ::release(data, stream_t(stream)); }
void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    ::copy_in(device, host, bytes, stream_t(stream));
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    ::copy_out(host, device, bytes, stream_t(stream));
}
void synchronize(Stream stream) { ::synchronize(stream_t(stream)); }
std::string driver_problem() { return ::driver_problem(); }

template void forward(Rung, const Forward<float>&, const Sizes&, Stream);
template void forward(Rung, const Forward<double>&, const Sizes&, Stream);
template void backward(Rung, const Backward<float>&, const Sizes&, Stream);
template void backward(Rung, const Backward<double>&, const Sizes&, Stream);
}  // namespace gpu
