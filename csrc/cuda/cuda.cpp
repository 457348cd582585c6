// minillm._cuda: the bindings, to be linked with launch.cu as nvcc compiles it. Flags: setup.py.
#define MODULE _cuda
#include "bindings.cpp"
