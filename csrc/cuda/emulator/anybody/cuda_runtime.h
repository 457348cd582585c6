// CUDA's runtime for a CPU: what `#include <cuda_runtime.h>` finds (interface.h says how it comes to that).
#pragma once

#include <assert.h>  // nvcc has it in every .cu file

#include "atomics.h"
#include "host.h"
#include "interface.h"
#include "numbers.h"
#include "ptx.h"
#include "vectors.h"
#include "warp.h"
#include "words.h"
