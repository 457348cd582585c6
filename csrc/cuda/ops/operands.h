// The arguments and results of an op on the device, for its binding: all of them arrays of the device, which are neither
// copied nor waited for, or all of them NumPy's, which are copied in and whose results are copied out.
//
// A binding has the name and the arguments of the CPU's (csrc/cpu/NAME.cpp) and differs from it in four words. It lies in
// csrc/cuda/ops/NAME.cu, below the launchers; see softcap.cu. For an op NAME:
//   1. Kernels and launchers on raw pointers: NAME.cuh. The launcher launches nothing where there is nothing to do.
//   2. `Operands on;` first, then for each argument what the CPU's binding says, with `on.` in front:
//          const T* px = on.input<T>("x", x, x.shape);            // checks dtype, shape, layout, and on which side it is
//          const int64_t* pt = on.ids("tokens", tokens, shape, V);                   // int64, checked to be in [0, V)
//          auto out = on.fresh<T>(shape);                         // a Result<T>: an Object to return, a T* to write to
//          auto d = on.gradients<T>(into, {{C}, {C}});            // d[i] is null where nobody wants it
//          T* room = on.scratch<T>(count);                        // to work in, until the call is over
//   3. `on.run([&](gpu::Stream stream) { launcher(out, px, ..., stream); });`, which touches no Python object. The pointers
//      are the device's all along; NumPy's results are there after `run`, not before.
//   4. `return tuple_of({out, tuple_of({x, mean, rstd})});` as on the CPU. A number that Python wants: `on.read(pointer)`.
//   5. Register the functions, ladder steps as NAME_forward_1_naive; in the SPEC `kernels=CPU | GPU`; python tests/stubs.py.
#pragma once

#include <memory>

#include "python/device_array.h"
#include "python/register.h"

namespace minillm {

class Operands {
    enum class Side { none, host, device } side = Side::none;  // where the first array was
    string first;  // its name
    std::vector<std::shared_ptr<void>> blocks;  // what NumPy's arrays are copied to, and scratch
    struct CopyOut {
        void* host;
        const void* device;
        size_t bytes;
    };
    std::vector<CopyOut> results;

    void stand_on(const char* name, bool on_device);
    void* room(size_t bytes);
    void* brought(const char* name, const Array& a, bool and_back);
    std::pair<Object, void*> new_result(const string& dtype, int64_t itemsize, const Shape& shape);
    void copy_results_out();

public:
    const gpu::Stream stream = gpu::current_stream();
    Operands() { gpu::check_driver(); }
    Operands(const Operands&) = delete;

    // The array's numbers on the device, after the checks of `minillm::input`.
    template <class T>
    const T* input(const char* name, const Array& a, const Shape& shape) {
        return checked<T>(name, a, shape, false);
    }
    // The same to write to: a NumPy array gets what is there after `run`.
    template <class T>
    T* in_place(const char* name, const Array& a, const Shape& shape) {
        return checked<T>(name, a, shape, true);
    }
    template <class T>
    T* checked(const char* name, const Array& a, const Shape& shape, bool written) {
        check_shape(name, a, shape);
        check_dtype(name, a, DTYPE<T>);
        check_contiguous(name, a);
        check_aligned(name, a);
        if (written && !a.writeable) fail(name, " must be writeable");
        return static_cast<T*>(brought(name, a, written));
    }

    // The data of an array of the device whose strides its binding has checked.
    template <class T>
    const T* strided(const char* name, const Array& a) {
        stand_on(name, a.on_device);
        return static_cast<const T*>(a.data);
    }

    // Token ids, which are checked on the host, where arrays of the device keep a copy of those that came from there.
    const int64_t* ids(const char* name, const Array& a, const Shape& shape, int64_t size,
                       const int64_t* ignore_index = nullptr);

    // A new array on the side of the arguments, which must come first. Its contents: undefined, or zeros.
    template <class T>
    Result<T> fresh(const Shape& shape, bool zeros = false) {
        auto [array, data] = new_result(DTYPE<T>, sizeof(T), shape);
        if (zeros && data) gpu::clear(data, bytes_of(shape, sizeof(T)), stream);
        return {array, static_cast<T*>(data)};
    }

    // The gradients of parameters: in the arrays of `into`, to add to; or in new ones, if it is None.
    template <class T>
    std::vector<Result<T>> gradients(const Object& into, const std::vector<Shape>& shapes, bool zeros = false) {
        std::vector<Result<T>> all;
        const auto arrays = arrays_of(into, shapes.size());
        for (size_t i = 0; i < shapes.size(); i++) {
            if (into.is_none()) all.push_back(fresh<T>(shapes[i], zeros));
            else
                all.push_back({arrays[i] ? Object(*arrays[i]) : Object(),
                               arrays[i] ? in_place<T>("into", *arrays[i], shapes[i]) : nullptr});
        }
        return all;
    }

    template <class T>
    T* scratch(int64_t count) {
        return static_cast<T*>(room(count * sizeof(T)));
    }

    // Launches, and copies results to NumPy's arrays. Nobody waits where all is on the device.
    template <class F>
    void run(F f) {
        without_gil([&] {
            f(stream);
            copy_results_out();
        });
    }

    // A number that `run` left on the device; waits for it.
    template <class T>
    T read(const T* number) const {
        T value;
        gpu::copy_out(&value, number, sizeof(T), stream);
        gpu::synchronize(stream);
        return value;
    }

    static size_t bytes_of(const Shape& shape, size_t itemsize) {
        for (int64_t n : shape) itemsize *= size_t(n);
        return itemsize;
    }

private:
    static std::vector<std::optional<Array>> arrays_of(const Object& into, size_t count);
};

}  // namespace minillm
