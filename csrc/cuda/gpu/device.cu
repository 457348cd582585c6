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

int multiprocessors() {
    int count = 0;
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, current_device()), "multiprocessors");
    return count;
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
void* allocate_at_once(size_t bytes) {
    static const Stream aside = new_stream();
    void* data = allocate(bytes, aside);
    synchronize(aside);
    return data;
}
void release(void* data, Stream stream) { cudaFreeAsync(data, stream_t(stream)); }
void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_t(stream)), "copy to the GPU");
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_t(stream)), "copy from the GPU");
}
void copy_within(void* to, const void* from, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_t(stream)), "copy on the GPU");
}
void clear(void* device, size_t bytes, Stream stream) {
    check(cudaMemsetAsync(device, 0, bytes, stream_t(stream)), "fill on the GPU");
}
void poison(void* device, size_t bytes, Stream stream) {
    check(cudaMemsetAsync(device, 0xff, bytes, stream_t(stream)), "fill on the GPU");
}

Stream new_stream() {
    cudaStream_t stream;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    return stream;
}
void begin_recording(Stream stream) {
    check(cudaStreamBeginCapture(stream_t(stream), cudaStreamCaptureModeThreadLocal), "begin of a CUDA graph");
}
Graph end_recording(Stream stream) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_t(stream), &graph), "end of a CUDA graph");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t error = cudaGraphInstantiateWithFlags(&ready, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "a CUDA graph");
    return ready;
}
void replay(Graph graph, Stream stream) {
    check(cudaGraphLaunch(cudaGraphExec_t(graph), stream_t(stream)), "replay of a CUDA graph");
}
void forget(Graph graph) { cudaGraphExecDestroy(cudaGraphExec_t(graph)); }

void synchronize(Stream stream) { check(cudaStreamSynchronize(stream_t(stream)), "a kernel failed"); }
}  // namespace gpu
