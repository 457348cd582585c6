// Inline PTX: `asm("text" : "=r"(y) : "r"(x))` comes here as Ptx("text").op("=r", y).op("r", x).run(), which reads the
// text and does what it says (runtime/ptx.cpp: which instructions).
#pragma once

#include "words.h"

extern "C" void minillm_cuda_ptx(const char* text, void* operands, int count, const void* place);

namespace minillm_cuda {
struct PtxOperand {
    const char* constraint;
    uint64_t value;
    void* to;                               // what an output is written to
    unsigned bytes;
};
class Ptx {
    const char* text;
    PtxOperand operands[48];
    int count = 0;

public:
    MINILLM_INLINE explicit Ptx(const char* text) : text(text) {}
    template <class T>
    MINILLM_INLINE Ptx& op(const char* constraint, T&& x) {
        PtxOperand& o = operands[count++];
        o.constraint = constraint;
        o.bytes = sizeof x;
        o.value = 0;
        o.to = const_cast<void*>(static_cast<const volatile void*>(&x));
        if (constraint[0] != '=')
            __builtin_memcpy(&o.value, const_cast<const void*>(static_cast<const volatile void*>(&x)), sizeof x);
        return *this;
    }
    MINILLM_QUIET void run() { minillm_cuda_ptx(text, operands, count, __builtin_return_address(0)); }
};
}  // namespace minillm_cuda
