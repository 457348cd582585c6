// Fibers: a stack and a place to go on. On x86-64 a switch is fourteen instructions (some 2 ns); elsewhere, or with
// -DEMU_UCONTEXT, it is swapcontext, which asks the kernel about signals each time and takes a hundred times as long.
#pragma once

#include <memory>
#if !defined(__x86_64__)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu {
constexpr size_t STACK = 128 << 10;

#ifdef EMU_UCONTEXT
struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
};
inline void start_fiber(Fiber& f, void (*entry)()) {
    if (!f.stack) f.stack.reset(new char[STACK]);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    makecontext(&f.context, entry, 0);
}
inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

#else
struct Fiber {
    void* top = nullptr;                    // the stack pointer while it is not running
    std::unique_ptr<char[]> stack;
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

inline void start_fiber(Fiber& f, void (*entry)()) {
    if (!f.stack) f.stack.reset(new char[STACK]);
    auto end = reinterpret_cast<uintptr_t>(f.stack.get() + STACK) / 16 * 16;
    auto** top = reinterpret_cast<void**>(end) - 1;  // a function begins with its stack 8 bytes off a multiple of 16
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.top = top;
}
inline void switch_fiber(Fiber& from, Fiber& to) { emu_switch(&from.top, to.top); }
#endif
}  // namespace emu
