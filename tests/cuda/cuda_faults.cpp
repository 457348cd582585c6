// Kernels with one fault each, for test_emulator.py: the emulator must name every one of them.
#include "cuda/emulator/device.cpp"
#include "cuda/gpu/hopper.h"

namespace {
__global__ void barrier_in_a_branch(float*) {
    if (threadIdx.x < 7) __syncthreads();
}
__global__ void two_barriers(float*) {
    if (threadIdx.x < 7) __syncthreads();
    else __syncthreads();
}
__global__ void exchange_in_a_branch(float* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
}
__global__ void half_a_shuffle(float* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1); }
__global__ void misaligned_load(float* out) { out[threadIdx.x] = load4(out + 1).x; }
__global__ void misaligned_copy(float* out) {
    SHARED(float, shared);
    cp_async<16>(shared + 2, out, true);
}
__global__ void misaligned_ldmatrix(float*) {
    SHARED(float, shared);
    uint32_t r[4];
    ldmatrix(r, shared + 1);
}
__global__ void past_shared_memory(float*) {
    SHARED(float, shared);
    shared[64] = 1;
}
__global__ void past_the_array(float* out) { out[64] = 1; }
__global__ void before_the_array(float* out) { out[-1] = 1; }
// What is stored beyond is the NaN of memory that nobody has written, or that which stands beyond another array.
__global__ void unwritten_past_the_array(float* out) {
    SHARED(float, shared);
    out[64] = shared[0];
}
__global__ void unwritten_past_shared_memory(float*) {
    SHARED(float, shared);
    shared[64] = shared[0];
}
__global__ void one_too_many_loaded_and_stored(float* out) {
    SHARED(float, shared);
    out[64] = shared[64];
}

// Right or wrong, depending on the schedule: what lane 0 of the next warp wrote is read without a barrier.
__global__ void race(float* out) {
    SHARED(float, shared);
    shared[threadIdx.x] = float(threadIdx.x);
    __syncwarp();
    out[threadIdx.x] = shared[(threadIdx.x + 32) % 64];
}
__global__ void copy_without_wait(float* out) {
    SHARED(float, shared);
    cp_async<4>(shared + threadIdx.x, out + threadIdx.x, true);
    cp_async_commit();
    out[threadIdx.x] = shared[threadIdx.x];
}
__global__ void copy_with_wait(float* out) {
    SHARED(float, shared);
    cp_async<4>(shared + threadIdx.x, out + threadIdx.x, threadIdx.x != 5);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = shared[threadIdx.x] + 1;
}
__global__ void nothing(float*) {}

// Ordinary loads and stores: lane i at word STRIDE i (32: all in one bank), of VECTOR numbers at once.
template <int STRIDE, int VECTOR>
__global__ void strided(float* out) {
    SHARED(float, shared);
    float* mine = shared + threadIdx.x % 32 * STRIDE;
    if (VECTOR == 4) store4(mine, Vec4<float>{1, 1, 1, 1});
    else *mine = 1;
    __syncwarp();
    if (VECTOR == 4) {
        const Vec4<float> x = load4(mine);
        store4(out + threadIdx.x / 4 * 4, x);
    } else out[threadIdx.x] = *mine;
}

// ---- Hopper: 128 threads, shared memory of two barriers and, 1024 bytes on, a tile of 16 rows of 64 numbers ----
struct Tile {
    uint64_t barrier, other;
    unsigned char room[1008];
    bf16 rows[16 * 64];
};
TensorMap map_of(const float* data, uint32_t rows = 16) {        // 64 floats are two rows of 64 16-bit numbers
    return tensor_map(data, {64, 2, 1, 1}, {128, 16, 16}, {64, rows, 1, 1});
}
DEVICE void make_barrier(Tile* s, int arrivals, bool fence = true) {
    if (threadIdx.x == 0) barrier_init(&s->barrier, arrivals);
    if (threadIdx.x == 0 && fence) fence_barrier_init();
    __syncthreads();
}
// out gets the first 64 floats of the tile that landed, `bytes` of it expected.
DEVICE void load_tile(float* out, int bytes, bool fence, bool wait, int offset = 0) {
    SHARED(Tile, s);
    make_barrier(s, 1, fence);
    if (threadIdx.x == 0) {
        barrier_expect(&s->barrier, bytes);
        tma_load(reinterpret_cast<unsigned char*>(s->rows) + offset, map_of(out), &s->barrier, 0, 0, 0, 0);
    }
    if (wait) barrier_wait(&s->barrier, 0);
    const float x = threadIdx.x < 32 ? reinterpret_cast<float*>(s->rows)[threadIdx.x] : 0;
    __syncthreads();
    if (threadIdx.x < 32) out[threadIdx.x] = x;
}
__global__ void tma(float* out) { load_tile(out, 2048, true, true); }
__global__ void tma_without_wait(float* out) { load_tile(out, 2048, true, false); }
__global__ void tma_half_expected(float* out) { load_tile(out, 1024, true, true); }
__global__ void tma_too_much_expected(float* out) { load_tile(out, 4096, true, true); }
__global__ void tma_before_fence(float* out) { load_tile(out, 2048, false, true); }
__global__ void tma_misaligned(float* out) { load_tile(out, 2048, true, true, 64); }
__global__ void tma_past_shared(float* out) { load_tile(out, 2048, true, true, 1 << 17); }
__global__ void barrier_not_made(float*) {
    SHARED(Tile, s);
    barrier_arrive(&s->other);
}
__global__ void too_many_arrivals(float*) {
    SHARED(Tile, s);
    make_barrier(s, 1);
    if (threadIdx.x == 0) barrier_expect(&s->barrier, 16), barrier_arrive(&s->barrier);
}
__global__ void wrong_phase(float*) {
    SHARED(Tile, s);
    make_barrier(s, 128);
    barrier_arrive(&s->barrier);
    barrier_wait(&s->barrier, 0);
    barrier_wait(&s->barrier, 0);                                       // is over: does not wait
    barrier_wait(&s->barrier, 1);                                       // the next, to which nobody comes
}

// out = sums of a matmul of ones (64 x 16 in registers) with the tile's rows, all 1, and what is wrong with it.
enum { RIGHT, NO_PROXY_FENCE, ONE_FENCES, NO_FENCE, TOUCHED, READ_EARLY, OPERAND_CHANGED, WARPS_DIFFER, NOT_WAITED,
       NO_SWIZZLE, WAIT_NAMES_NOTHING, WAIT_NAMES_NO_A };
template <int WRONG>
__global__ void matmul(float* out) {
    SHARED(Tile, s);
    for (int i = threadIdx.x; i < 16 * 64; i += 128) s->rows[i] = bf16(1.0f);
    if (WRONG != NO_PROXY_FENCE && (WRONG != ONE_FENCES || threadIdx.x == 0)) fence_for_async();
    __syncthreads();
    float d[8][4] = {};
    const uint32_t one = pack<bf16>(1, 1);
    uint32_t a[4] = {one, one, one, one};
    const uint64_t b = descriptor(s->rows, WRONG == WARPS_DIFFER && threadIdx.x >= 64 ? 1024 : 0);
    if (WRONG != NO_FENCE) wgmma_fence(d);
    wgmma_rs<bf16>(d, a, WRONG == NO_SWIZZLE ? b << 2 >> 2 : b, true);
    wgmma_commit();
    if (WRONG == READ_EARLY && threadIdx.x < 64) out[threadIdx.x] = d[0][0];
    if (WRONG == TOUCHED) d[0][0] = 0;
    if (WRONG == OPERAND_CHANGED) a[0] = 0;
    if (WRONG == WAIT_NAMES_NOTHING) wgmma_wait<0>();
    else if (WRONG != NOT_WAITED) wgmma_wait<0>(d);
    if (WRONG == WAIT_NAMES_NO_A) {                                     // and so may be written before it is over
        a[0] = 0;
        wgmma_fence(d);
        wgmma_rs<bf16>(d, a, b, true);
        wgmma_commit();
        wgmma_wait<0>(d);
    }
    if (WRONG != READ_EARLY && threadIdx.x < 64) out[threadIdx.x] = d[0][0];
}
__global__ void registers_from_nowhere(float*) {
    LAUNCH_BOUNDS(128, 1);
    take_registers<256>();
}
__global__ void registers_not_by_eight(float*) {
    LAUNCH_BOUNDS(128, 1);
    keep_registers<100>();
}
__global__ void registers_without_blocks(float*) {
    LAUNCH_BOUNDS(128);
    keep_registers<24>();
}
template <int MOST, int BLOCKS>
__global__ void bounded(float*) {
    LAUNCH_BOUNDS(MOST, BLOCKS);
}

// clang-format off: many a line
void (*const kernels[])(float*) = {
    barrier_in_a_branch, two_barriers, exchange_in_a_branch, half_a_shuffle, misaligned_load, misaligned_copy,
    misaligned_ldmatrix, past_shared_memory, past_the_array, before_the_array,
    unwritten_past_the_array, unwritten_past_shared_memory, one_too_many_loaded_and_stored, race, copy_without_wait, copy_with_wait,
    nothing, strided<1, 1>, strided<32, 1>, strided<2, 1>, strided<4, 4>, strided<32, 4>, tma, tma_without_wait, tma_half_expected, tma_too_much_expected, tma_before_fence, tma_misaligned,
    tma_past_shared, barrier_not_made, too_many_arrivals, wrong_phase, matmul<RIGHT>, matmul<NO_PROXY_FENCE>,
    matmul<ONE_FENCES>, matmul<WAIT_NAMES_NOTHING>, matmul<WAIT_NAMES_NO_A>, matmul<NO_FENCE>, matmul<TOUCHED>, matmul<READ_EARLY>, matmul<OPERAND_CHANGED>, matmul<WARPS_DIFFER>,
    matmul<NOT_WAITED>, matmul<NO_SWIZZLE>, registers_from_nowhere, registers_not_by_eight,
    registers_without_blocks, bounded<64, 1>, bounded<1024, 4>};
// clang-format on
std::string message;
}  // namespace

// Run kernel `which` over 64 numbers, which it gets and gives in `data`. Returns the error's text, "" for none.
extern "C" const char* run(int which, unsigned seed, float* data, unsigned grid_y, int threads, size_t shared) {
    message = "";
    emu::seed = seed;
    float* device = static_cast<float*>(gpu::allocate(64 * sizeof(float), nullptr));
    try {
        gpu::copy_in(device, data, 64 * sizeof(float), nullptr);
        launch(kernels[which], dim3(1, grid_y), threads, shared, nullptr, device);
        gpu::copy_out(data, device, 64 * sizeof(float), nullptr);
    } catch (const std::exception& error) {
        message = error.what();
    }
    gpu::release(device, nullptr);
    return message.c_str();
}

struct Record {
    int64_t size;
    const float* data;
};
__global__ void takes_a_record(Record, float* out) { out[0] = 1; }

// An array on streams 1 and 2, in an order that is right (0, 1) or not. Returns the error's text, "" for none.
extern "C" const char* streams(int which) {
    const gpu::Stream one = reinterpret_cast<gpu::Stream>(1), two = reinterpret_cast<gpu::Stream>(2);
    auto* data = static_cast<float*>(gpu::allocate(256, one));
    auto* other = static_cast<float*>(gpu::allocate(256, two));
    message = "";
    bool freed = false;
    const auto run = [&](gpu::Stream stream, float* array) { launch(nothing, dim3(1), 32, 0, stream, array); };
    try {
        run(one, data);
        if (which == 1) gpu::synchronize(one), run(two, data), gpu::synchronize(two);               // waited for
        if (which == 2) run(two, data);
        if (which == 3) launch(takes_a_record, dim3(1), 32, 0, two, Record{7, data + 3}, other);    // inside a record
        if (which == 4) gpu::copy_out(other, data, 256, two);
        if (which == 5) gpu::synchronize(one), run(two, data), run(one, data);                     // waited too early
        if (which == 6) gpu::release(data, two), freed = true, run(two, other);                    // told afterwards
    } catch (const std::exception& error) {
        message = error.what();
    }
    if (!freed) gpu::synchronize(one), gpu::synchronize(two), gpu::release(data, one);
    gpu::release(other, two);
    emu::fault_of_a_release = "";
    return message.c_str();
}
