// What compilers call for each access under -fsanitize=thread, and for undefined behaviour under -fsanitize=
// signed-integer-overflow,... : their own libraries are not linked, these functions stand in.
#include <cstdlib>
#include <cstring>

#include "memory.h"
#include "report.h"

using namespace minillm_cuda;
#define PLACE reinterpret_cast<uintptr_t>(__builtin_return_address(0))

static void touch_range(const void* p, size_t n, unsigned flags, uintptr_t place) {
    if (n) touch(uintptr_t(p), n, flags | UNALIGNED, place);
}

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, size_t n) { touch_range(p, n, READ, PLACE); }
void __tsan_write_range(void* p, size_t n) { touch_range(p, n, WRITE, PLACE); }

#define HOOKS(N)                                                                                        \
    void __tsan_read##N(void* p) { touch(uintptr_t(p), N, READ, PLACE); }                               \
    void __tsan_write##N(void* p) { touch(uintptr_t(p), N, WRITE, PLACE); }                             \
    void __tsan_read_write##N(void* p) {                                                                \
        touch(uintptr_t(p), N, READ, PLACE);                                                            \
        touch(uintptr_t(p), N, WRITE, PLACE);                                                           \
    }                                                                                                   \
    void __tsan_unaligned_read##N(void* p) { touch(uintptr_t(p), N, READ | UNALIGNED, PLACE); }         \
    void __tsan_unaligned_write##N(void* p) { touch(uintptr_t(p), N, WRITE | UNALIGNED, PLACE); }       \
    void __tsan_volatile_read##N(void* p) { touch(uintptr_t(p), N, READ | VOLATILE, PLACE); }           \
    void __tsan_volatile_write##N(void* p) { touch(uintptr_t(p), N, WRITE | VOLATILE, PLACE); }         \
    void __tsan_unaligned_volatile_read##N(void* p) { touch(uintptr_t(p), N, READ | VOLATILE, PLACE); } \
    void __tsan_unaligned_volatile_write##N(void* p) { touch(uintptr_t(p), N, WRITE | VOLATILE, PLACE); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

// memcpy and its like, and malloc of a kernel: the linker's --wrap sends the user's calls here.
void* __wrap_memcpy(void* to, const void* from, size_t n) {
    touch_range(from, n, READ, PLACE);
    touch_range(to, n, WRITE, PLACE);
    return std::memcpy(to, from, n);
}
void* __wrap_memmove(void* to, const void* from, size_t n) {
    touch_range(from, n, READ, PLACE);
    touch_range(to, n, WRITE, PLACE);
    return std::memmove(to, from, n);
}
void* __wrap_memset(void* to, int value, size_t n) {
    touch_range(to, n, WRITE, PLACE);
    return std::memset(to, value, n);
}
void* __wrap_malloc(size_t n) { return current ? new_array(n ? n : 1, false, false, PLACE) : std::malloc(n); }
void __wrap_free(void* p) {
    if (!in_device_memory(uintptr_t(p))) return std::free(p);
    if (Array* a = array_of(uintptr_t(p))) a->freed_at = PLACE;
}

// std::atomic and the __atomic builtins.
#define ATOMICS(BITS, T)                                                                                          \
    static T& at##BITS(const volatile T* p, uintptr_t place) {                                                    \
        touch(uintptr_t(p), sizeof(T), WRITE | ATOMIC, place);                                                    \
        if (current) atomic_order(uintptr_t(p));                                                                  \
        return *const_cast<T*>(p);                                                                                \
    }                                                                                                             \
    T __tsan_atomic##BITS##_load(const volatile T* p, int) {                                                      \
        return __atomic_load_n(&at##BITS(p, PLACE), __ATOMIC_SEQ_CST);                                            \
    }                                                                                                             \
    void __tsan_atomic##BITS##_store(volatile T* p, T x, int) {                                                   \
        __atomic_store_n(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                               \
    }                                                                                                             \
    T __tsan_atomic##BITS##_exchange(volatile T* p, T x, int) {                                                   \
        return __atomic_exchange_n(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                     \
    }                                                                                                             \
    T __tsan_atomic##BITS##_fetch_add(volatile T* p, T x, int) {                                                  \
        return __atomic_fetch_add(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                      \
    }                                                                                                             \
    T __tsan_atomic##BITS##_fetch_sub(volatile T* p, T x, int) {                                                  \
        return __atomic_fetch_sub(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                      \
    }                                                                                                             \
    T __tsan_atomic##BITS##_fetch_and(volatile T* p, T x, int) {                                                  \
        return __atomic_fetch_and(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                      \
    }                                                                                                             \
    T __tsan_atomic##BITS##_fetch_or(volatile T* p, T x, int) {                                                   \
        return __atomic_fetch_or(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                       \
    }                                                                                                             \
    T __tsan_atomic##BITS##_fetch_xor(volatile T* p, T x, int) {                                                  \
        return __atomic_fetch_xor(&at##BITS(p, PLACE), x, __ATOMIC_SEQ_CST);                                      \
    }                                                                                                             \
    int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* p, T* c, T x, int, int) {                       \
        return __atomic_compare_exchange_n(&at##BITS(p, PLACE), c, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }                                                                                                             \
    int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* p, T* c, T x, int, int) {                         \
        return __atomic_compare_exchange_n(&at##BITS(p, PLACE), c, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }                                                                                                             \
    T __tsan_atomic##BITS##_compare_exchange_val(volatile T* p, T c, T x, int, int) {                             \
        __atomic_compare_exchange_n(&at##BITS(p, PLACE), &c, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
        return c;                                                                                                 \
    }
ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) {
    if (current) fence();
}
void __tsan_atomic_signal_fence(int) {}

// ---- undefined behaviour: the layouts are those of GCC's and Clang's ubsan ----
struct Location {
    const char* file;
    uint32_t line, column;
};
struct Type {
    uint16_t kind, info;                    // info of an integer: 2 * log2(bits), plus 1 if it is signed
    char name[1];
};
struct OverflowData {
    Location where;
    Type* type;
};
struct BoundsData {
    Location where;
    Type *array, *index;
};
struct ShiftData {
    Location where;
    Type *left, *right;
};
struct MismatchData {
    Location where;
    Type* type;
    uint8_t log_alignment, kind;            // kind: 0 is a load, 1 a store
};

static std::string number(const Type* type, uintptr_t value) {
    const int bits = 1 << (type->info >> 1);
    if (bits > 64) return "?";
    if (!(type->info & 1)) return std::to_string(uint64_t(value));
    return std::to_string(int64_t(uint64_t(value) << (64 - bits)) >> (64 - bits));
}
static void undefined(const char* kind, const Location& where, const std::string& text) {
    found({kind, "error", text, 0, 0, where.file, int(where.line)});
}
static void overflow(const OverflowData* d, const std::string& text) {
    undefined("overflow", d->where, say(text, " does not fit into ", d->type->name));
}
void __ubsan_handle_add_overflow(OverflowData* d, uintptr_t a, uintptr_t b) {
    overflow(d, say(number(d->type, a), " + ", number(d->type, b)));
}
void __ubsan_handle_sub_overflow(OverflowData* d, uintptr_t a, uintptr_t b) {
    overflow(d, say(number(d->type, a), " - ", number(d->type, b)));
}
void __ubsan_handle_mul_overflow(OverflowData* d, uintptr_t a, uintptr_t b) {
    overflow(d, say(number(d->type, a), " * ", number(d->type, b)));
}
void __ubsan_handle_negate_overflow(OverflowData* d, uintptr_t a) { overflow(d, say("-(", number(d->type, a), ")")); }
void __ubsan_handle_divrem_overflow(OverflowData* d, uintptr_t a, uintptr_t b) {
    undefined("overflow", d->where, say(number(d->type, a), " divided by ", number(d->type, b)));
}
void __ubsan_handle_out_of_bounds(BoundsData* d, uintptr_t index) {
    undefined("out of bounds", d->where, say("index ", number(d->index, index), " of an array ", d->array->name));
}
// Of a vector type: GCC may store its parts one by one, which no access shows.
void __ubsan_handle_type_mismatch_v1(MismatchData* d, uintptr_t address) {
    const unsigned bytes = 1u << d->log_alignment;
    if (current && address % bytes && !known("misaligned", uintptr_t(d), 0))
        undefined("misaligned", d->where,
                  say(d->kind == 1 ? "writes " : "reads ", bytes, " bytes at once, ", what_is(address),
                      ", an address that is not a multiple of ", bytes));
}
void __ubsan_handle_shift_out_of_bounds(ShiftData* d, uintptr_t, uintptr_t b) {
    undefined("overflow", d->where, say("shift of ", d->left->name, " by ", number(d->right, b), " bits"));
}
}
