// Views that are hard to address: rows, heads and sequences more than 2^31 numbers apart, in address space without memory;
// and, for the tensor cores, arrays that are not made of 16-byte chunks. All work on one stream that is not the default.
//
// And the last of 2^31 - 1 sequences, alone: its blocks are run, and its arrays lie where they would lie if all were
// there, far beyond what 32 bits can index. test_far.py compares with the same numbers as the only sequence.
#define SMALL
#include "cuda/attention/launch.cu"
#include "cuda/attention/launch_wgmma.cu"
#include "cuda/emulator/device.cpp"

#include <sys/mman.h>

#include <memory>

using namespace minillm::attention;

namespace {
std::string message;

template <class T>
struct Problem {
    const T *qkv, *dout;
    T *out, *dqkv;
    Sum<T>*lse, *delta;
};

template <class E>
void run_variant(int variant, const Forward<E>& a, const Sizes& n) {
    if constexpr (std::is_same<E, float>::value) variant == 1 ? naive(a, n, nullptr) : flash(a, n, nullptr);
    else variant == 3 ? mma_kernels(a, n, nullptr) : launch_wgmma(a, n, nullptr);
}
template <class E>
void run_variant(int variant, const Backward<E>& a, const Sizes& n) {
    if constexpr (std::is_same<E, float>::value) variant == 1 ? naive(a, n, nullptr) : flash(a, n, nullptr);
    else variant == 3 ? mma_kernels(a, n, nullptr) : wgmma_kernels(a, n, nullptr);
}

template <class E>
void run_one(int variant, const Problem<E>& p, int64_t B, int T, int HS) {
    const Sizes n = {B, 1, T, HS, 1 / std::sqrt(double(HS)), true};
    const int64_t before = (B - 1) * T;                                 // rows of the sequences that are not there
    const auto part = [&](auto* data, int which, int parts) {
        using Number = std::remove_pointer_t<decltype(data)>;
        return View<Number>{data + (which - before * parts) * HS, int64_t(T) * parts * HS, HS, int64_t(parts) * HS};
    };
    emu::first_x = unsigned(B - 1);
    const auto q = part(p.qkv, 0, 3), k = part(p.qkv, 1, 3), v = part(p.qkv, 2, 3);
    run_variant(variant, Forward<E>{q, k, v, part(p.out, 0, 1), p.lse - before}, n);
    const auto dqkv = [&](int which) { return part(p.dqkv, which, 3); };
    const View<const E> out = part(const_cast<const E*>(p.out), 0, 1);
    run_variant(
        variant,
        Backward<E>{q, k, v, out, part(p.dout, 0, 1), p.lse - before, p.delta - before, dqkv(0), dqkv(1), dqkv(2)}, n);
    emu::first_x = 0;
}

// Numbers from x on, as E on the device.
template <class E>
E* on_device(const float* x, int64_t count) {
    auto* data = static_cast<E*>(gpu::allocate(count * sizeof(E), nullptr));
    for (int64_t i = 0; i < count && x; i++) data[i] = E(x[i]);
    return data;
}

template <class E>
void run(int variant, int64_t B, const float* qkv, const float* dout, float* out, float* dqkv, int T, int HS) {
    const int64_t size = int64_t(T) * HS;
    const Problem<E> p = {on_device<E>(qkv, 3 * size),     on_device<E>(dout, size),     on_device<E>(nullptr, size),
                          on_device<E>(nullptr, 3 * size), on_device<float>(nullptr, T), on_device<float>(nullptr, T)};
    run_one(variant, p, B, T, HS);
    for (int64_t i = 0; i < size; i++) out[i] = float(p.out[i]);
    for (int64_t i = 0; i < 3 * size; i++) dqkv[i] = float(p.dqkv[i]);
    for (const E* memory : {p.qkv, p.dout, (const E*)p.out, (const E*)p.dqkv}) gpu::release((void*)memory, nullptr);
    for (float* memory : {p.lse, p.delta}) gpu::release(memory, nullptr);
}
}  // namespace

extern "C" const char* attention(int variant, int64_t B, const float* qkv, const float* dout, float* out, float* dqkv,
                                 int T, int HS) {
    message = "";
    try {
        variant < 3 ? run<float>(variant, B, qkv, dout, out, dqkv, T, HS)
                    : run<bf16>(variant, B, qkv, dout, out, dqkv, T, HS);
    } catch (const std::exception& error) {
        message = error.what();
    }
    emu::first_x = 0;                       // also where an error has come between
    return message.c_str();
}

// ---- views ----

namespace {
const gpu::Stream OWN_STREAM = reinterpret_cast<gpu::Stream>(1);
enum Kind { DENSE, FAR, OFFSET, ROW, HEAD, BATCH };         // the last four: one number off 16-byte chunks

template <class T>
View<T> shaped(const Sizes& n, Kind kind) {
    const int64_t head = kind == FAR ? (int64_t(1) << 31) + 64 : n.T * n.HS + 512 + (kind == HEAD);
    const int64_t row = kind == FAR ? int64_t(1) << 25 : n.HS + (kind == ROW);
    return {nullptr, kind == FAR ? 2 * head : (n.NH * head + 15) / 8 * 8 + (kind == BATCH), head, row};
}
// Address space for a view; pages that nobody touches take no memory.
template <class T>
struct Room {
    View<T> view;
    size_t bytes;
    void* memory;
    Room(const Sizes& n, Kind kind) : view(shaped<T>(n, kind)) {
        bytes = sizeof(T) * ((n.B - 1) * view.batch + (n.NH - 1) * view.head + n.T * view.row + 64);
        memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::runtime_error("no address space");
        view.data = static_cast<T*>(memory) + (kind == OFFSET);
    }
    Room(const Room&) = delete;
    ~Room() { munmap(memory, bytes); }
    operator View<const T>() const { return {view.data, view.batch, view.head, view.row}; }
    // f(number of the view, its place in C order).
    template <class F>
    void each(const Sizes& n, F f) {
        for (int64_t b = 0, i = 0; b < n.B; b++)
            for (int64_t h = 0; h < n.NH; h++)
                for (int t = 0; t < n.T; t++)
                    for (int d = 0; d < n.HS; d++, i++)
                        f(view.data[b * view.batch + h * view.head + t * view.row + d], i);
    }
};

Bfloat16 number(float x, Bfloat16) { return {bf16(x).bits}; }
float number(float x, float) { return x; }
float value(float x) { return x; }
float value(Bfloat16 x) {
    bf16 number;
    number.bits = x.bits;
    return float(number);
}

// in: q, k, v, dout; out: out, dq, dk, dv; each (B, NH, T, HS).
template <class T>
void run_views(int variant, Kind kind, const float* const (&in)[4], float* const (&results)[4], const Sizes& n) {
    std::vector<std::unique_ptr<Room<T>>> a;
    for (int i = 0; i < 8; i++) a.push_back(std::make_unique<Room<T>>(n, kind));
    for (int i = 0; i < 4; i++) a[i]->each(n, [&](T& x, int64_t at) { x = number(in[i][at], T()); });
    const auto rows = [&] { return static_cast<float*>(gpu::allocate(n.heads() * n.T * sizeof(float), OWN_STREAM)); };
    float *lse = rows(), *delta = rows();
    forward<T>(Variant(variant), Forward<T>{*a[0], *a[1], *a[2], a[4]->view, lse}, n, OWN_STREAM);
    backward<T>(Variant(variant),
                Backward<T>{*a[0], *a[1], *a[2], *a[4], *a[3], lse, delta, a[5]->view, a[6]->view, a[7]->view}, n,
                OWN_STREAM);
    for (int i = 0; i < 4; i++) a[4 + i]->each(n, [&](T& x, int64_t at) { results[i][at] = value(x); });
    gpu::release(lse, OWN_STREAM);
    gpu::release(delta, OWN_STREAM);
    emu::use_array(nullptr, OWN_STREAM, "");                        // tells of a release
}
}  // namespace

extern "C" const char* views(int variant, int kind, const float* q, const float* k, const float* v, const float* dout,
                             float* out, float* dq, float* dk, float* dv, int64_t B, int64_t NH, int T, int HS) {
    message = "";
    const Sizes n = {B, NH, T, HS, 1 / std::sqrt(double(HS)), true};
    try {
        variant < 3 ? run_views<float>(variant, Kind(kind), {q, k, v, dout}, {out, dq, dk, dv}, n)
                    : run_views<Bfloat16>(variant, Kind(kind), {q, k, v, dout}, {out, dq, dk, dv}, n);
    } catch (const std::exception& error) {
        message = error.what();
    }
    return message.c_str();
}
