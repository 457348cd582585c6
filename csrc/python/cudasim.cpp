// minillm._cudasim: the GPU's kernels on the emulator, one translation unit. Flags: setup.py.
#define MODULE _cudasim
#define EMULATOR
#include "launch.cu"
#include "launch_wgmma.cu"
#include "bindings.cpp"
