// The host's side of CUDA's runtime API.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "words.h"

extern "C" void minillm_cuda_looked_at();       // somebody takes the error of the last launch

enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidSymbol = 13,
    cudaErrorInvalidDevicePointer = 17,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719,
    cudaErrorCooperativeLaunchTooLarge = 720,
    cudaErrorNotSupported = 801,
    cudaErrorUnknown = 999
};
typedef cudaError cudaError_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaFuncCache {
    cudaFuncCachePreferNone,
    cudaFuncCachePreferShared,
    cudaFuncCachePreferL1,
    cudaFuncCachePreferEqual
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrClockRate = 13,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrCooperativeLaunch = 95,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaMemoryAdvise {
    cudaMemAdviseSetReadMostly = 1,
    cudaMemAdviseSetPreferredLocation = 3,
    cudaMemAdviseSetAccessedBy = 5
};
enum {
    cudaCpuDeviceId = -1,
    cudaStreamDefault = 0,
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventBlockingSync = 1,
    cudaEventDisableTiming = 2,
    cudaHostAllocDefault = 0,
    cudaHostAllocPortable = 1,
    cudaHostAllocMapped = 2,
    cudaHostAllocWriteCombined = 4,
    cudaHostRegisterDefault = 0,
    cudaMemAttachGlobal = 1,
    cudaSharedmemCarveoutMaxShared = 100,
    cudaDeviceScheduleAuto = 0
};

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock;
    int regsPerBlock, warpSize, maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate;
    size_t totalConstMem;
    int major, minor, multiProcessorCount, memoryClockRate, memoryBusWidth, l2CacheSize, maxThreadsPerMultiProcessor,
        integrated, canMapHostMemory, concurrentKernels, ECCEnabled, unifiedAddressing, managedMemory,
        cooperativeLaunch, concurrentManagedAccess, asyncEngineCount, maxBlocksPerMultiProcessor, regsPerMultiprocessor;
    size_t sharedMemPerMultiprocessor, sharedMemPerBlockOptin, reservedSharedMemPerBlock;
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, cacheModeCA, maxDynamicSharedSizeBytes,
        preferredShmemCarveout;
};

extern "C" {
cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaMallocManaged(void** p, size_t bytes, unsigned flags = 1);
cudaError_t cudaMallocHost(void** p, size_t bytes, unsigned flags = 0);
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags);
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t);
cudaError_t cudaMallocPitch(void** p, size_t* pitch, size_t width, size_t height);
cudaError_t cudaFree(void* p);
cudaError_t cudaFreeAsync(void* p, cudaStream_t);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaHostRegister(void*, size_t, unsigned);
cudaError_t cudaHostUnregister(void*);
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t = nullptr);
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind);
cudaError_t cudaMemset(void* p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t = nullptr);
cudaError_t cudaMemset2D(void* p, size_t pitch, int value, size_t width, size_t height);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMemPrefetchAsync(const void*, size_t, int device, cudaStream_t = nullptr);
cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, int device);

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t);
const char* cudaGetErrorName(cudaError_t);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaThreadSynchronize();
cudaError_t cudaDeviceReset();
cudaError_t cudaSetDevice(int);
cudaError_t cudaSetDeviceFlags(unsigned);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache);

cudaError_t cudaStreamCreate(cudaStream_t*);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t*, unsigned, int);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamQuery(cudaStream_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0);
cudaError_t cudaEventCreate(cudaEvent_t*);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventQuery(cudaEvent_t);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t);
cudaError_t cudaEventDestroy(cudaEvent_t);
// `call` is the source of the arguments: "k<float, 4>, cudaFuncAttribute..., bytes".
cudaError_t minillm_cuda_attribute(const char* call, int attribute, int value);
cudaError_t minillm_cuda_occupancy(int* blocks, int threads, size_t shared);
}

// cudaMalloc((void**)&p, n) and cudaMalloc(&p, n).
#define MINILLM_TYPED(name)                                              \
    template <class T, class... More>                                    \
    MINILLM_INLINE cudaError_t name(T** p, size_t bytes, More... more) { \
        return name(reinterpret_cast<void**>(p), bytes, more...);        \
    }
MINILLM_TYPED(cudaMalloc)
MINILLM_TYPED(cudaMallocManaged)
MINILLM_TYPED(cudaMallocHost)
MINILLM_TYPED(cudaHostAlloc)
MINILLM_TYPED(cudaMallocAsync)
#undef MINILLM_TYPED
template <class T>
MINILLM_INLINE cudaError_t cudaMallocPitch(T** p, size_t* pitch, size_t width, size_t height) {
    return cudaMallocPitch(reinterpret_cast<void**>(p), pitch, width, height);
}

namespace minillm_cuda {
template <class K>
cudaError_t set_attribute(const char* call, K&&, cudaFuncAttribute which, int value) {
    return minillm_cuda_attribute(call, which, value);
}
template <class T>
T take(void**& arguments) {
    return *static_cast<T*>(*arguments++);
}
// What a launch by pointer returns: whoever looks at it has checked the launch.
struct LaunchError {
    cudaError_t error;
    operator cudaError_t() const {
        minillm_cuda_looked_at();
        return error;
    }
};
template <class... P>
LaunchError launch_pointer(int cooperative, const char* file, int line, const char* call, void (*kernel)(P...),
                           dim3 grid, dim3 block, void** arguments, size_t shared = 0, cudaStream_t = nullptr) {
    std::tuple<P...> values{take<P>(arguments)...};     // braces: from left to right
    const auto run = [kernel, values]() { std::apply(kernel, values); };
    return {cudaError_t(launch_as(cooperative, file, line, call, grid, block, shared, run))};
}
template <class T>
cudaError_t to_symbol(T& symbol, const void* from, size_t bytes, size_t offset = 0,
                      cudaMemcpyKind = cudaMemcpyHostToDevice, cudaStream_t = nullptr) {
    if (offset + bytes > sizeof symbol) return cudaErrorInvalidValue;
    std::memcpy(const_cast<char*>(reinterpret_cast<const char*>(&symbol)) + offset, from, bytes);
    return cudaSuccess;
}
template <class T>
cudaError_t from_symbol(void* to, const T& symbol, size_t bytes, size_t offset = 0,
                        cudaMemcpyKind = cudaMemcpyDeviceToHost, cudaStream_t = nullptr) {
    if (offset + bytes > sizeof symbol) return cudaErrorInvalidValue;
    std::memcpy(to, reinterpret_cast<const char*>(&symbol) + offset, bytes);
    return cudaSuccess;
}
}  // namespace minillm_cuda
#define cudaFuncSetAttribute(...) ::minillm_cuda::set_attribute(#__VA_ARGS__, __VA_ARGS__)
#define cudaLaunchKernel(...) ::minillm_cuda::launch_pointer(0, __FILE__, __LINE__, #__VA_ARGS__, __VA_ARGS__)
#define cudaLaunchCooperativeKernel(...) \
    ::minillm_cuda::launch_pointer(1, __FILE__, __LINE__, #__VA_ARGS__, __VA_ARGS__)
#define cudaMemcpyToSymbol ::minillm_cuda::to_symbol
#define cudaMemcpyToSymbolAsync ::minillm_cuda::to_symbol
#define cudaMemcpyFromSymbol ::minillm_cuda::from_symbol

template <class T, class S>
cudaError_t cudaGetSymbolAddress(T** p, S& symbol) {
    *p = reinterpret_cast<T*>(&symbol);
    return cudaSuccess;
}
template <class K>
cudaError_t cudaFuncSetCacheConfig(K&&, cudaFuncCache) {
    return cudaSuccess;
}
template <class K>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, K&&) {
    *a = cudaFuncAttributes{};
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    return cudaSuccess;
}
template <class K>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, K&&, int threads, size_t shared) {
    return minillm_cuda_occupancy(blocks, threads, shared);
}
template <class K>
cudaError_t cudaOccupancyMaxPotentialBlockSize(int* grid, int* block, K&&, size_t = 0, int limit = 0) {
    *block = limit && limit < 256 ? limit : 256;
    *grid = 4;
    return cudaSuccess;
}
