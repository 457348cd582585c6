#include "cuda/ops/operands.h"

namespace minillm {

// A mixture is refused: what must not happen in silence is a copy between the sides in every call.
void Operands::stand_on(const char* name, bool on_device) {
    const Side here = on_device ? Side::device : Side::host;
    if (side == Side::none) side = here, first = name;
    if (side == here) return;
    if (on_device) fail(name, " must be an array of NumPy, as ", first, " is: got one on the device");
    fail(name, " must be on the device, as ", first, " is: got an array of NumPy (from_numpy copies it there)");
}

void* Operands::room(size_t bytes) {
    blocks.push_back(gpu::take(bytes));
    return blocks.back().get();
}

void* Operands::brought(const char* name, const Array& a, bool and_back) {
    stand_on(name, a.on_device);
    if (a.on_device) return a.data;
    const size_t bytes = a.size() * a.itemsize;
    void* device = room(bytes);
    if (bytes) gpu::copy_in(device, a.data, bytes, stream);
    if (bytes && and_back) results.push_back({a.data, device, bytes});
    return device;
}

std::pair<Object, void*> Operands::new_result(const string& dtype, int64_t itemsize, const Shape& shape) {
    if (side == Side::device) {
        const DeviceArray made = empty_device_array(dtype, shape);
        return {python_object(made), made.data()};
    }
    auto [array, host] = new_array(dtype, itemsize, shape);
    const size_t bytes = bytes_of(shape, itemsize);
    void* device = room(bytes);
    if (bytes) results.push_back({host, device, bytes});
    return {array, device};
}

const int64_t* Operands::ids(const char* name, const Array& a, const Shape& shape, int64_t size,
                             const int64_t* ignore_index) {
    stand_on(name, a.on_device);
    check_shape(name, a, shape);
    if (a.on_device && a.dtype != "int32") check_dtype(name, a, "int64");
    if (a.on_device) check_contiguous(name, a);
    const Array on_host = a.on_device ? *to<Array>(host_copy(*device_array(a))) : a;
    const auto checked = minillm::ids(name, on_host, on_host.shape, size, ignore_index);
    if (a.on_device && a.dtype == "int64") return static_cast<const int64_t*>(a.data);
    void* device = room(a.size() * sizeof(int64_t));
    if (a.size()) gpu::copy_in(device, checked.data, a.size() * sizeof(int64_t), stream);
    if (a.size()) gpu::synchronize(stream);                         // the checked copy ends here
    return static_cast<int64_t*>(device);
}

std::vector<std::optional<Array>> Operands::arrays_of(const Object& into, size_t count) {
    if (into.is_none()) return {};
    const auto tuple = to<Tuple>(into);
    if (!tuple || tuple->size() != int64_t(count)) fail("into must be a tuple of ", int64_t(count), " arrays");
    std::vector<std::optional<Array>> arrays;
    for (size_t i = 0; i < count; i++) {
        const Object item = (*tuple)[i];
        arrays.push_back(to<Array>(item));
        if (!item.is_none() && !arrays.back()) fail("into must hold arrays to add to, or None");
    }
    return arrays;
}

void Operands::copy_results_out() {
    for (const CopyOut& r : results) gpu::copy_out(r.host, r.device, r.bytes, stream);
    if (side != Side::device) gpu::synchronize(stream);
}

}  // namespace minillm
