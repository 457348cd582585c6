// Anybody's CUDA on a CPU, the contract: what the rewriter makes of a .cu file, and what the runtime then reports.
//
// A .cu file becomes C++ that g++ (or clang++) compiles against the headers of this folder (`-I anybody` in front of
// all others: `#include <cuda_runtime.h>` finds the one here). The rewriter changes these places and no other:
//
//   k<3><<<g, b, s, st>>>(x, n + 1);   ::minillm_cuda::launch(__FILE__, __LINE__, "k<3>", g, b, s, st,
//                                          [=](auto... a) { k<3>(a...); }, x, n + 1);       (no s, st: 0, 0)
//   __shared__ float x[32][33], n;     MINILLM_SHARED(x, float[32][33]); MINILLM_SHARED(n, float);
//   extern __shared__ float s[];       MINILLM_DYNAMIC(s, float);           inside a function
//                                      MINILLM_DYNAMIC_GLOBAL(s, float);    at file scope
//   asm volatile("t" : "=r"(y) : "l"(p), "n"(16) : "memory");
//                                      ::minillm_cuda::Ptx("t").op("=r", y).op("l", p).op("n", 16).run();
//   __global__ void __launch_bounds__(256, 2) k(...) {       the same, and behind its brace
//                                          ::minillm_cuda::launch_bounds("__launch_bounds__(256, 2)", 7, 256, 2);
//                                      likewise __maxnreg__(128): maxnreg("__maxnreg__(128)", 7, 128);
//   cudaLaunchKernel((void*)k, ...)    cudaLaunchKernel(k, ...)    also cudaLaunchCooperativeKernel, cudaFuncSet-
//                                      Attribute, cudaOccupancy...: the cast of the kernel's name goes away
//   NULL among a launch's arguments    nullptr
//   #include of the user's own files   rewritten likewise; `#line` keeps the user's files and lines everywhere
//
// All other words of CUDA (__global__, __device__, __constant__, __launch_bounds__, threadIdx, __syncthreads, ...) stay
// as they are: the headers define them. cuBLAS, cuDNN, CUB, Thrust and the like have headers here that end the
// compilation with one clear #error. How to compile and link, and how to read the report:
//
//   minillm/kernels/own/emulator.py:  build(source, library), findings(log, library)
//
// The runtime writes one JSON object a line to the file named by the environment variable MINILLM_CUDA_REPORT (else to
// stderr) as soon as it finds something, so that a crash loses nothing:
//   {"id": 3, "kind": "out of bounds", "severity": "error", "text": "...", "pc": 4711, "other": 4242, "module": "/x/my.so",
//    "file": "", "line": 0, "block": [0,0,0], "thread": [3,0,0], "kernel": "k<3>", "count": 1}
// `pc` and `other` are offsets into the module, which `findings` turns into the user's file and line (0: unknown);
// where the place is known from the source (launches, integer overflow), file and line are filled in. Severities:
//   error   out of bounds, uninitialised, race, divergence, deadlock, hang, misaligned, crash, launch, host memory,
//           device memory, freed memory, double free, shared memory, registers, overflow, undefined lane, unsupported
//   note    same value (written by several threads without order), leak, unchecked launch, partial warp
//   slow    bank conflict, uncoalesced
// At the end come lines {"id": 3, "count": 4096} for what was found more than once.
//
// The runtime reserves (not uses) some 140 GB of address space; under a limit (RLIMIT_AS) it makes do with less device
// memory: 128 MB of it under 8 GB.
#pragma once

extern "C" {
// Also for ctypes. The rest is CUDA's own API: cudaMalloc, cudaMemcpy, ... are extern "C" functions of the library.
void minillm_cuda_name(const void* array, const char* name);  // what messages call an array of device memory
void minillm_cuda_seed(unsigned seed);  // 0: threads take turns in order; else the order is shuffled by it
void minillm_cuda_capability(int capability);  // 80, 86, 89, 90, 120: limits of shared memory; default 90
// CPU time that one kernel may take until it counts as hanging; of the clock's, twice as much. Default 20.
void minillm_cuda_seconds(double seconds);
void minillm_cuda_finish();  // leaks and unchecked launches; runs at exit too, once
int minillm_cuda_errors();  // findings of severity "error" so far
void* minillm_cuda_allocation(const void* pointer, unsigned long* bytes);  // the device array around it, or null
}
