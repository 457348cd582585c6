// What a model does to arrays of the device between its ops: DeviceArray's operators. float32 and float64; named by dtype.
#pragma once

#include "cuda/gpu/device.h"
#include "python/array.h"

namespace minillm::arithmetic {
void add(const string& dtype, void* out, const void* a, const void* b, int64_t n, gpu::Stream stream);  // out may be a
// out[r, c] = x[r, c] * columns[c], of (n / C, C)
void multiply_columns(const string& dtype, void* out, const void* x, const void* columns, int64_t n, int64_t C,
                      gpu::Stream stream);
void fill(const string& dtype, void* out, double value, int64_t n, gpu::Stream stream);
void average(const string& dtype, void* mean, const void* x, double rate, int64_t n,
             gpu::Stream stream);  // + rate (x - mean)
double sum(const string& dtype, const void* x, int64_t n, gpu::Stream stream);  // in float64, in one order; waits
}  // namespace minillm::arithmetic
