// The launchers of what is compiled for sm_90a alone: variant 4, and Hopper's units one by one.
#include "cuda/attention/4_wgmma_backward.cuh"
#include "cuda/gpu/conformance_hopper.cuh"

namespace minillm::attention {
namespace {

// What TMA must know of an array: axes HS, T, NH, B; a box is a panel of 64 numbers of a tile's rows.
template <class E>
TensorMap map_of(const View<const E>& a, const Sizes& n, int rows) {
    const auto bytes = [](int64_t stride, int64_t length) {         // of an axis of length 1 the stride says nothing
        return length > 1 ? uint64_t(stride) * sizeof(E) : uint64_t(16);
    };
    return tensor_map(a.data, {uint64_t(n.HS), uint64_t(n.T), uint64_t(n.NH), uint64_t(n.B)},
                      {bytes(a.row, n.T), bytes(a.head, n.NH), bytes(a.batch, n.B)}, {64, uint32_t(rows), 1, 1});
}

template <class E, int D>
void launch_size(const Forward<E>& a, const Sizes& n, stream_t stream) {
    using Tile = WgmmaTile<E, D>;
    const TensorMaps maps = {map_of(a.q, n, Tile::ROWS), map_of(a.k, n, Tile::COLUMNS), map_of(a.v, n, Tile::COLUMNS)};
    launch(wgmma_forward<E, D>, grid_in_groups(n, Tile::ROWS), Tile::THREADS, sizeof(Tile), stream, maps, a, n);
}

template <class E, int D, bool KEYS>
void launch_pass(const Backward<E>& a, const Sizes& n, stream_t stream) {
    using Tile = WgmmaBackwardTile<E, D, KEYS>;
    const View<const E>&x = KEYS ? a.k : a.q, &y = KEYS ? a.v : a.dout, &u = KEYS ? a.q : a.k, &w = KEYS ? a.dout : a.v;
    const BackwardMaps maps = {map_of(x, n, OWNED), map_of(y, n, OWNED), map_of(u, n, Tile::COLUMNS),
                               map_of(w, n, Tile::COLUMNS)};
    launch(wgmma_backward<E, D, KEYS>, grid_in_groups(n, OWNED), WGMMA_THREADS, sizeof(Tile), stream, maps, a, n);
}
template <class E, int D>
void launch_size(const Backward<E>& a, const Sizes& n, stream_t stream) {
    launch_pass<E, D, true>(a, n, stream);
    launch_pass<E, D, false>(a, n, stream);
}

}  // namespace

template <class E>
void launch_wgmma(const Forward<E>& a, const Sizes& n, stream_t stream) {
    n.HS <= 64 ? launch_size<E, 64>(a, n, stream) : launch_size<E, 128>(a, n, stream);
}
template <class E>
void launch_wgmma(const Backward<E>& a, const Sizes& n, stream_t stream) {
    n.HS <= 64 ? launch_size<E, 64>(a, n, stream) : launch_size<E, 128>(a, n, stream);
}

#define INSTANTIATE_WGMMA(E)                                               \
    template void launch_wgmma(const Forward<E>&, const Sizes&, stream_t); \
    template void launch_wgmma(const Backward<E>&, const Sizes&, stream_t);
INSTANTIATE_WGMMA(bf16)
#ifndef SMALL
INSTANTIATE_WGMMA(fp16)
#endif
#undef INSTANTIATE_WGMMA
}  // namespace minillm::attention
