// The kernels for one instruction set: amx. Flags: setup.py.
#define MODULE amx
#include "module.cpp"
