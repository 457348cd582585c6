// Fibers: a stack and a place to go on. On x86-64 a switch is fourteen instructions (some 2 ns); elsewhere, or with
// -DEMU_UCONTEXT, it is swapcontext, which asks the kernel about signals each time and takes a hundred times as long.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu {
constexpr size_t STACK = 128 << 10;

// A stack that is used again by later fibers: of fresh memory the system would clear a page or two each time, which takes
// longer than most small kernels.
class Stack {
    std::unique_ptr<char[]> memory;
    static std::vector<std::unique_ptr<char[]>>& idle() {
        static std::vector<std::unique_ptr<char[]>> stacks;
        return stacks;
    }

public:
    Stack() = default;
    Stack(Stack&&) = default;
    ~Stack() {
        if (memory) idle().push_back(std::move(memory));
    }
    char* get() {
        if (memory) return memory.get();
        if (idle().empty()) memory.reset(new char[STACK]);
        else memory = std::move(idle().back()), idle().pop_back();
        return memory.get();
    }
};

#ifdef EMU_UCONTEXT
struct Fiber {
    ucontext_t context;
    Stack stack;
};
inline void start_fiber_on(Fiber& f, void (*entry)(), char* stack, size_t bytes) {
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = stack;
    f.context.uc_stack.ss_size = bytes;
    makecontext(&f.context, entry, 0);
}
inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

#else
struct Fiber {
    void* top = nullptr;                    // the stack pointer while it is not running
    Stack stack;
};

// Push the registers that a function must preserve, change stacks, pop them again.
extern "C" void emu_switch(void** save_top, void* new_top);
asm(R"(
.text
.hidden emu_switch
.weak emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size emu_switch, .-emu_switch
)");

inline void start_fiber_on(Fiber& f, void (*entry)(), char* stack, size_t bytes) {
    auto end = reinterpret_cast<uintptr_t>(stack + bytes) / 16 * 16;
    auto** top = reinterpret_cast<void**>(end) - 1;  // a function begins with its stack 8 bytes off a multiple of 16
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.top = top;
}
inline void switch_fiber(Fiber& from, Fiber& to) { emu_switch(&from.top, to.top); }
#endif

inline void start_fiber(Fiber& f, void (*entry)()) { start_fiber_on(f, entry, f.stack.get(), STACK); }
}  // namespace emu
