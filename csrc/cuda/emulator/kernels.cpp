// The CUDA kernels and their launchers, compiled for the emulator: minillm._cpp.cudasim. Flags: setup.py.
#include "cuda/attention/launch.cu"
#include "cuda/attention/launch_wgmma.cu"
#include "cuda/gpu/conformance.cuh"
