"""Kernels of one's own: a C or C++ function bound to an op by the names of its arguments, compiled and called.

In reading order: prototype.py (what the source says), binding.py (which argument is which of ours), build.py (compile),
call.py (arrays in, arrays out). Checking and timing them is workbench/kernel's part.
"""
C_FLAGS = "-O3 -march=native -fopenmp"          # of somebody's own kernel on his own machine; --cflags for others
