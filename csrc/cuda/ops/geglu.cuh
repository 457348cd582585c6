// GeGLU: swiglu.cuh with gelu.cuh's activation. Formulas: minillm/ops/geglu.py; grid and ladder: elementwise.cuh.
#pragma once

#include "cuda/ops/gelu.cuh"
