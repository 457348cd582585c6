// The kernels for one instruction set: avx512. Flags: setup.py.
#define MODULE avx512
#include "module.cpp"
