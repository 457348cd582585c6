// device.h by the CUDA runtime. (The emulator's is emulator/device.cpp.)
#include "cuda/gpu/conformance.cuh"
#include "cuda/gpu/device.h"

namespace gpu {
std::string driver_problem() {
    int version = 0, count = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0) return "no NVIDIA driver";
    cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (error != cudaSuccess) return cudaGetErrorString(error);
    return count ? "" : "no NVIDIA GPU";
}

int current_device() {
    int device = 0;
    check(cudaGetDevice(&device), "which GPU");
    return device;
}

int capability() {
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, current_device()), "compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, current_device()), "compute capability");
    return 10 * major + minor;
}

// Where allocations come from. It keeps what is freed: returning memory at each synchronisation costs far more.
static cudaMemPool_t pool() {
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, current_device()), "memory pool");
    static uint64_t keep = ~uint64_t(0);
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "memory pool");
    return pool;
}
int64_t peak_bytes() {
    uint64_t most = 0, none = 0;
    check(cudaMemPoolGetAttribute(pool(), cudaMemPoolAttrUsedMemHigh, &most), "memory pool");
    check(cudaMemPoolSetAttribute(pool(), cudaMemPoolAttrUsedMemHigh, &none), "memory pool");  // 0: begin from now
    return int64_t(most);
}

void* allocate(size_t bytes, Stream stream) {
    static const cudaMemPool_t kept = pool();
    (void)kept;
    void* data = nullptr;
    check(cudaMallocAsync(&data, bytes, stream_t(stream)), "asked for " + std::to_string(bytes) + " bytes on the GPU");
    return data;
}
void release(void* data, Stream stream) { cudaFreeAsync(data, stream_t(stream)); }
void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_t(stream)), "copy to the GPU");
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_t(stream)), "copy from the GPU");
}
void poison(void* device, size_t bytes, Stream stream) {
    check(cudaMemsetAsync(device, 0xff, bytes, stream_t(stream)), "fill on the GPU");
}
void synchronize(Stream stream) { check(cudaStreamSynchronize(stream_t(stream)), "a kernel failed"); }
}  // namespace gpu
