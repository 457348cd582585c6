// cudaMalloc, cudaMemcpy, cudaMemset, cudaFree and their like.
#include <cstring>

#include "host_state.h"
#include "report.h"

using namespace minillm_cuda;
#define PLACE reinterpret_cast<uintptr_t>(__builtin_return_address(0))

namespace {
cudaError_t make(void** p, size_t bytes, bool host_may, bool managed, uintptr_t place) {
    if (!p) return keep(cudaErrorInvalidValue);
    *p = nullptr;
    if (broken) return broken;
    if (!bytes) return cudaSuccess;
    *p = new_array(bytes, host_may, managed, place);
    return *p ? cudaSuccess : keep(cudaErrorMemoryAllocation);
}

cudaError_t release(void* p, const char* what, uintptr_t place) {
    if (!p) return cudaSuccess;
    Array* a = array_of(uintptr_t(p));
    if (!a || a->begin != uintptr_t(p)) {
        found({"double free", "error",
               say(what, " of a pointer that no allocation returned (", what_is(uintptr_t(p)), ")"), place});
        return keep(cudaErrorInvalidValue);
    }
    if (a->freed_at) {
        found({"double free", "error", say(what, " of ", name_of(*a), ", which was freed before at {other}"), place,
               a->freed_at});
        return keep(cudaErrorInvalidValue);
    }
    a->freed_at = place;
    launches_pending = false;               // cudaFree waits for the device
    return cudaSuccess;
}

bool check_host(const void* p, const char* what, uintptr_t place) {
    const Array* a = array_of(uintptr_t(p));
    if (!in_device_memory(uintptr_t(p)) || (a && a->host_may)) return true;
    found({"device memory", "error",
           say(what, " is called host memory but lies in device memory, ", what_is(uintptr_t(p))), place});
    return false;
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, uintptr_t place) {
    if (broken) return broken;
    if (!bytes) return cudaSuccess;
    const bool device_to = in_device_memory(uintptr_t(to)), device_from = in_device_memory(uintptr_t(from));
    if (kind == cudaMemcpyDefault)
        kind = device_to ? (device_from ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                         : (device_from ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool good = to_device ? check_range(to, bytes, "cudaMemcpy writes", place)
                          : check_host(to, "the target of cudaMemcpy", place);
    good &= from_device ? check_range(from, bytes, "cudaMemcpy reads", place)
                        : check_host(from, "the source of cudaMemcpy", place);
    if (!good) return keep(cudaErrorInvalidValue);
    std::memmove(to, from, bytes);
    if (to_device) mark_written(to, bytes);
    launches_pending = false;
    return cudaSuccess;
}

cudaError_t fill(void* p, int value, size_t bytes, uintptr_t place) {
    if (broken) return broken;
    if (!bytes) return cudaSuccess;
    if (!check_range(p, bytes, "cudaMemset writes", place)) return keep(cudaErrorInvalidValue);
    std::memset(p, value, bytes);
    mark_written(p, bytes);
    return cudaSuccess;
}
}  // namespace

extern "C" {
cudaError_t cudaMalloc(void** p, size_t bytes) { return make(p, bytes, false, false, PLACE); }
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) { return make(p, bytes, false, false, PLACE); }
cudaError_t cudaMallocManaged(void** p, size_t bytes, unsigned) { return make(p, bytes, true, true, PLACE); }
cudaError_t cudaMallocHost(void** p, size_t bytes, unsigned) { return make(p, bytes, true, false, PLACE); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return make(p, bytes, true, false, PLACE); }
cudaError_t cudaMallocPitch(void** p, size_t* pitch, size_t width, size_t height) {
    *pitch = (width + 511) / 512 * 512;
    return make(p, *pitch * height, false, false, PLACE);
}
cudaError_t cudaFree(void* p) { return release(p, "cudaFree", PLACE); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return release(p, "cudaFreeAsync", PLACE); }
cudaError_t cudaFreeHost(void* p) { return release(p, "cudaFreeHost", PLACE); }
cudaError_t cudaHostRegister(void*, size_t, unsigned) { return keep(cudaErrorNotSupported); }
cudaError_t cudaHostUnregister(void*) { return keep(cudaErrorNotSupported); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    *device = host;
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return copy(to, from, bytes, kind, PLACE);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    return copy(to, from, bytes, kind, PLACE);
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
    for (size_t row = 0; row < height; row++) {
        const cudaError_t error = copy(static_cast<char*>(to) + row * to_pitch,
                                       static_cast<const char*>(from) + row * from_pitch, width, kind, PLACE);
        if (error) return error;
    }
    return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) { return fill(p, value, bytes, PLACE); }
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) { return fill(p, value, bytes, PLACE); }
cudaError_t cudaMemset2D(void* p, size_t pitch, int value, size_t width, size_t height) {
    for (size_t row = 0; row < height; row++)
        if (const cudaError_t error = fill(static_cast<char*>(p) + row * pitch, value, width, PLACE)) return error;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *free = *total = size_t(8) << 30;
    return cudaSuccess;
}
cudaError_t cudaMemPrefetchAsync(const void* p, size_t bytes, int, cudaStream_t) {
    return check_range(p, bytes, "cudaMemPrefetchAsync names", PLACE) ? cudaSuccess : keep(cudaErrorInvalidValue);
}
cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, int) { return cudaSuccess; }
}
