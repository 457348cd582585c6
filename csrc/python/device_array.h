// An array on the device, as Python holds it: DeviceArray of minillm._cpp.cuda and cudasim (bound in device_array.cpp).
#pragma once

#include <memory>

#include "cuda/gpu/arena.h"
#include "python/array.h"

namespace minillm {

// What the host knows of an int64 array and all its views: ops check ids there, without waiting for the device.
struct HostCopy {
    int64_t count;  // of numbers in the whole array
    Object numbers;  // all of them, in their order; None: they must be read from the device
    bool theirs = false;  // another library has the memory, and may write there
};

struct DeviceArray {
    std::shared_ptr<void> memory;  // of the arena, or of another library; views share it
    int64_t offset;  // bytes from its start to the first number
    Shape shape, strides;  // strides in bytes, as NumPy's
    string dtype;
    int64_t itemsize;
    std::shared_ptr<HostCopy> host;  // of int64 in memory of ours; views share it
    gpu::Stream stream;  // where its numbers are made, for other libraries that must wait

    char* data() const { return static_cast<char*>(memory.get()) + offset; }
    int64_t size() const;
    bool contiguous() const;
};

Shape c_strides(const Shape& shape, int64_t itemsize);
int64_t size_of(const string& dtype);  // bytes of a number; ValueError for a dtype that no DeviceArray has
DeviceArray empty_device_array(const string& dtype, const Shape& shape);  // its contents undefined
Object python_object(DeviceArray array);  // for Python
const DeviceArray* device_array(const Object& object);  // null: it is none
Object host_copy(const DeviceArray& array);  // its numbers for NumPy: those of `host`, or by waiting for the device

}  // namespace minillm
