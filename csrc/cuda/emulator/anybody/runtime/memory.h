// What every access is held against: the arrays of device and shared memory, and a cell of history for each word.
#pragma once

#include "engine.h"

namespace minillm_cuda {
constexpr size_t SHARED_SLOTS = 64, SHARED_SLOT = 1 << 20;     // address space of one live block, with gaps
enum : unsigned { READ = 0, WRITE = 1, ATOMIC = 2, UNALIGNED = 4, VOLATILE = 8, ONLY_WRITES = 16, UNSAMPLED = 32 };

// The last four accesses to a 4-byte word that matter, and which of its bytes were ever written.
struct alignas(64) Cell {
    uint64_t who[4];                        // block's serial << 40 | thread << 30 | its clock
    uint32_t what[4];                       // place in the code | byte mask << 26 | WRITE, ATOMIC << 30
    uint64_t written_for;  // the block (shared memory) or array (device memory) whose bytes they are
    uint32_t written;
};

struct Array {
    uintptr_t begin;
    size_t bytes;
    uintptr_t made_at, freed_at;
    bool host_may, managed, whole;  // whole: every byte was written by the host
    uint64_t id;
    std::string name;                       // of the argument that it is, where one is known
};
std::string name_of(const Array& a);        // `x`, or "device array 3"

// An access by the running thread (or by the host), at a place in the user's code.
void touch(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place);
extern uintptr_t last_place;

void start_of_launch(Launch& launch);
void end_of_launch(Launch& launch);
void end_of_block(Block& block);
bool in_users_code(uintptr_t pc);
std::string what_is(uintptr_t address);  // in words, for a message
std::string hexadecimal(uint64_t x);

uintptr_t shared_offset(uintptr_t address);  // in the running block's slot, and back
uintptr_t shared_address(uintptr_t offset);
void* shared_variable(const void* site, const char* name, size_t bytes, bool dynamic, uintptr_t place);

// Device memory. `array_of` also finds arrays that were freed; nullptr: none there.
void* new_array(size_t bytes, bool host_may, bool managed, uintptr_t place);
Array* array_of(uintptr_t address);
std::vector<Array>& arrays();
bool in_device_memory(uintptr_t address);
bool is_symbol(uintptr_t address, size_t bytes);  // a __device__ or __constant__ variable of the module
// Before the host copies: is the range inside one live array? Reports it if not.
bool check_range(const void* pointer, size_t bytes, const char* what, uintptr_t place);
void mark_written(const void* pointer, size_t bytes);
extern bool launches_pending;  // since the host last waited for the device
extern int capability;
size_t shared_limit();

// advice.cpp: bank conflicts and scattered accesses, from a log of the first blocks
struct Sample {
    uint32_t place;
    uint16_t thread;
    uint8_t bytes;
    bool shared;
    uint64_t address;
};
extern std::vector<Sample> samples;
void give_advice(uintptr_t code_base);
}  // namespace minillm_cuda
