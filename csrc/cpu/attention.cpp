// Causal attention, flash style: tiles of keys, a running softmax, no T x T memory. Formulas: minillm/ops/attention.py.
//
// The kernels are in attention/, each a step of the ladder: 1_naive (the definition), 2_blocked (the running softmax in
// plain loops), 3_simd, which is what everybody gets, bf16 (its cache in half the bytes), and decode, for few queries
// against the keys and values of a KV cache.
#include "cpu/attention/3_simd.h"
#include "cpu/attention/pair.h"

namespace minillm::attention {

static const Variant<Simd> registered("");

}  // namespace minillm::attention
