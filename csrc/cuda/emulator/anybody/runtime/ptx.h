// Inline PTX, read once a text and then interpreted.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../ptx.h"
#include "memory.h"

namespace minillm_cuda {
struct Operand {
    enum Kind { REGISTER, ARGUMENT, NUMBER, VECTOR, ADDRESS } kind = NUMBER;
    std::string name;                       // of a register: declared in the text, or special (laneid, tid.x)
    uint64_t number = 0;                    // a number, the argument's place, or an address's offset
    std::vector<Operand> parts;             // of a vector; of an address its base; `d|p` has p in it
};
struct Instruction {
    std::string text, predicate;
    bool negated = false;
    std::vector<std::string> words;         // of the opcode: "mma", "sync", "aligned", ...
    std::vector<Operand> operands;
    bool has(const char* word) const;
    const std::string& type() const { return words.back(); }
};
std::vector<Instruction> read_ptx(const char* text);

// The run of one text by the running thread.
struct PtxRun {
    PtxOperand* arguments;
    int count;
    uintptr_t place;
    std::map<std::string, uint64_t> registers;

    uint64_t get(const Operand& o) const;
    void set(const Operand& o, uint64_t value);
    uintptr_t address(const Operand& o, bool shared) const;
    void step(const Instruction& i);
};
bool matrix_instruction(PtxRun& run, const Instruction& i);     // ptx_matrix.cpp: mma, ldmatrix
bool number_instruction(PtxRun& run, const Instruction& i);     // ptx_numbers.cpp: arithmetic, conversions
bool memory_instruction(PtxRun& run, const Instruction& i);     // ptx_memory.cpp: loads, stores, copies, atomics

// Asynchronous copies: they land when the thread waits for their group, as late as it may.
void copy_later(uintptr_t to, uintptr_t from, size_t bytes, size_t filled, uintptr_t place);
void commit_copies();
void wait_for_copies(size_t groups_left);

uint64_t shuffle_lanes(int mode, unsigned mask, uint64_t word, int operand, int width, uintptr_t place);
unsigned lane_votes(unsigned mask, int vote, uintptr_t place, unsigned* present);

template <class T>
T as(uint64_t bits) {
    T x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}
template <class T>
uint64_t bits_of(T x) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof x);
    return bits;
}
}  // namespace minillm_cuda
