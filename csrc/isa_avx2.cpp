// The kernels for one instruction set: avx2. Flags: setup.py.
#define MODULE avx2
#include "module.cpp"
