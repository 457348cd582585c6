// The kernels for one instruction set: scalar. Flags: setup.py.
#define MODULE scalar
#include "module.cpp"
