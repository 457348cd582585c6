// Muon on a GPU: the binding. Kernels: muon.cuh.
#include "cuda/ops/muon.cuh"

#include <cstring>

#include "cuda/ops/operands.h"

namespace minillm::muon {
namespace {

// An array, or a list of them.
std::vector<Array> arrays_of(const char* name, const Object& given) {
    const auto list = to<List>(given);
    std::vector<Array> found;
    for (int64_t i = 0; i < (list ? list->size() : 1); i++) {
        const auto array = to<Array>(list ? (*list)[i] : given);
        if (!array) fail(name, " must be an array, or a list of arrays: got ", list ? (*list)[i] : given);
        found.push_back(*array);
    }
    return found;
}

// Rows of NumPy's arrays that lie apart, gathered for the device; what is written goes back where it came from.
struct Gathered {
    Array apart, whole;
    bool written;
};

void copy_rows(const Array& to, const Array& from) {
    for (int64_t i = 0; i < from.shape[0]; i++)
        std::memcpy(static_cast<char*>(to.data) + i * to.strides[0],
                    static_cast<const char*>(from.data) + i * from.strides[0], from.shape[1] * from.itemsize);
}

// An array (R, K) whose rows are each in one piece: T, or const T for one that is only read.
template <class T>
Rows<T> rows_of(Operands& on, std::vector<Gathered>& gathered, const char* name, const Array& a, const Shape& shape) {
    using Number = std::remove_const_t<T>;
    constexpr bool WRITTEN = !std::is_const_v<T>;
    check_shape(name, a, shape);
    check_dtype(name, a, DTYPE<Number>);
    check_aligned(name, a);
    if (WRITTEN && !a.writeable) fail(name, " must be writeable");
    const int64_t R = a.shape[0], K = a.shape[1], stride = R > 1 ? a.strides[0] / a.itemsize : K;
    if (a.size() > 0 && ((K > 1 && a.strides[1] != a.itemsize) || stride < K))
        fail(name, " must have rows whose numbers lie side by side");
    if (a.on_device && !a.contiguous) return {const_cast<T*>(on.strided<Number>(name, a)), stride};
    Array whole = a;
    if (!a.contiguous) {
        whole = *to<Array>(fresh<Number>(a.shape));
        copy_rows(whole, a);
        gathered.push_back({a, whole, WRITTEN});
    }
    if constexpr (WRITTEN) return {on.in_place<T>(name, whole, a.shape), K};
    else return {on.input<Number>(name, whole, a.shape), K};
}

template <class T>
Room<T> room_for(Operands& on, const std::vector<Item<T>>& items) {
    int64_t n = 0, small = 0;
    for (const Item<T>& item : items) {
        n = std::max(n, item.R * item.K);
        small = std::max(small, std::min(item.R, item.K));
    }
    return {on.scratch<T>(n), on.scratch<T>(n), on.scratch<T>(small * small), on.scratch<T>(small * small),
            on.scratch<double>(1 + sum_squares::pieces(n))};
}

template <class T>
void update_all(const std::vector<Array>& w, const std::vector<Array>& grad, const std::vector<Array>& m,
                const std::vector<Array>& bits, double lr, double momentum, double weight_decay, double scale) {
    Operands on;
    std::vector<Gathered> gathered;
    std::vector<Item<T>> items;
    for (size_t i = 0; i < w.size(); i++) {
        const Rows<T> rows = rows_of<T>(on, gathered, "w", w[i], {ANY, ANY});
        const Shape& shape = w[i].shape;
        const Rows<const T> grads = rows_of<const T>(on, gathered, "grad", grad[i], shape);
        const Rows<T> moment = rows_of<T>(on, gathered, "m", m[i], shape);
        const Rows<uint16_t> copy =
            bits.empty() ? Rows<uint16_t>{} : rows_of<uint16_t>(on, gathered, "bits", bits[i], shape);
        items.push_back({rows, moment, grads, copy, shape[0], shape[1]});
    }
    const Settings<T> s{T(momentum), T(1 - momentum), T(scale), T(1 - lr * weight_decay), T(lr)};
    const Room<T> room = room_for(on, items);
    on.run([&](gpu::Stream stream) {
        for (const Item<T>& item : items) update(item, room, s, stream_t(stream));
    });
    for (const Gathered& one : gathered)
        if (one.written) copy_rows(one.apart, one.whole);
}

void muon_update(const Object& w, const Object& grad, const Object& m, double lr, double momentum, double weight_decay,
                 double scale, const Object& bits) {
    const auto ws = arrays_of("w", w), grads = arrays_of("grad", grad), ms = arrays_of("m", m);
    if (ws.empty()) return;
    const auto copies = bits.is_none() ? std::vector<Array>() : arrays_of("bits", bits);
    by_dtype("w", ws[0], [&](auto zero) {
        using T = decltype(zero);
        if (!(momentum >= 0 && momentum < 1)) fail("momentum must be in [0, 1): got ", momentum);
        if (!bits.is_none() && !std::is_same_v<T, float>) fail("bits are of a float32 w: got a w of float64");
        for (auto [name, size] :
             {std::pair{"grad", grads.size()}, {"m", ms.size()}, {"bits", bits.is_none() ? ws.size() : copies.size()}})
            if (size != ws.size())
                fail(name, " must be as many arrays as w: ", int64_t(ws.size()), ", got ", int64_t(size));
        update_all<T>(ws, grads, ms, copies, lr, momentum, weight_decay, scale);
    });
}

const Register registered("muon_update(w, grad, m, lr, momentum=0.95, weight_decay=0.0, scale=1.0, bits=None)",
                          &muon_update);

}  // namespace
}  // namespace minillm::muon
