// Ordinary loads and stores of shared memory, watched: where kernels are compiled with -fsanitize=thread, which calls a
// function at each access, and linked with this file, which is compiled without and answers. It finds who has stored
// what (fence_for_async) and bank conflicts of ordinary accesses: lanes of a warp that touch different words of one of
// the 32 banks in the same access, the n-th of each lane at one place of the program. Nothing but tests needs it: it lies in
// a folder of its own, so that the module cudasim is built without.
#include <dlfcn.h>

#include <map>
#include <tuple>

#include "cuda/gpu/gpu.h"

namespace emu {
namespace {

struct Access {
    uintptr_t addresses[32];
    int bytes[32] = {}, lanes = 0;  // 0 bytes: this lane has not been there
};
using Where = std::tuple<int, const void*, int>;  // warp, place, how often this lane has been there
std::map<Where, Access> open_accesses;
std::map<std::pair<unsigned, const void*>, int> times;  // by thread and place
std::map<const void*, int64_t> conflicts;  // by place
int watched_block = -1;

// Turns beyond the first: 16 bytes are read by 8 lanes at once, 8 bytes by 16.
int64_t turns_lost(const Access& access) {
    const int widest = *std::max_element(access.bytes, access.bytes + 32), at_once = widest == 16  ? 8
                                                                                     : widest == 8 ? 16
                                                                                                   : 32;
    int64_t lost = 0;
    for (int first = 0; first < 32; first += at_once) {
        std::map<int, std::vector<uintptr_t>> words;  // of each bank
        size_t most = 1;
        for (int lane = first; lane < first + at_once; lane++)
            for (int byte = 0; byte < access.bytes[lane]; byte += 4) {
                const uintptr_t word = (access.addresses[lane] + byte) / 4;
                std::vector<uintptr_t>& bank = words[word % 32];
                if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
                most = std::max(most, bank.size());
            }
        lost += int64_t(most) - 1;
    }
    return lost;
}

void close(const Where& where, const Access& access) {
    if (const int64_t lost = turns_lost(access)) conflicts[std::get<1>(where)] += lost;
}

void begin_block() {
    for (const auto& [where, access] : open_accesses) close(where, access);
    open_accesses.clear();
    times.clear();
    watched_block = block->serial;
    writers.assign(block->shared_bytes, -1);
    unwatched = 0;
}

void touch(void* p, int bytes, bool writes, const void* place) {
    if (!block || !block->self || unwatched) return;
    const auto* address = static_cast<unsigned char*>(p);
    if (address < block->shared || address + bytes > block->shared + block->shared_bytes) return;
    if (watched_block != block->serial) begin_block();
    const unsigned thread = block->self->id.x;
    if (writes) std::fill_n(writers.begin() + (address - block->shared), bytes, int(thread));
    const Where where = {int(thread / 32), place, times[{thread, place}]++};
    Access& access = open_accesses[where];
    access.addresses[thread % 32] = reinterpret_cast<uintptr_t>(p);
    access.bytes[thread % 32] = bytes;
    if (++access.lanes < 32) return;
    close(where, access);
    open_accesses.erase(where);
}

void touch_four(const void* p, int bytes, bool writes, int line) {
    touch(const_cast<void*>(p), bytes, writes, reinterpret_cast<const void*>(intptr_t(line)));
}
const bool watching = (watcher = &touch_four);

}  // namespace
}  // namespace emu

extern "C" {
// Turns lost so far, and forget them. `worst` gets the place with the most: an offset into the library, or the line of a
// load4 or store4.
int64_t take_ordinary_conflicts(int64_t* worst) {
    if (emu::block) emu::watched_block = -1;
    for (const auto& [where, access] : emu::open_accesses) emu::close(where, access);
    emu::open_accesses.clear();
    int64_t all = 0, most = 0;
    for (const auto& [place, lost] : emu::conflicts) {
        all += lost;
        if (lost <= most) continue;
        Dl_info info;
        most = lost;
        *worst = reinterpret_cast<intptr_t>(place);
        if (dladdr(place, &info)) *worst -= reinterpret_cast<intptr_t>(info.dli_fbase);
    }
    emu::conflicts.clear();
    return all;
}

#define PLACE __builtin_return_address(0)
#define ACCESS(BYTES)                                                                  \
    void __tsan_read##BYTES(void* p) { emu::touch(p, BYTES, false, PLACE); }           \
    void __tsan_write##BYTES(void* p) { emu::touch(p, BYTES, true, PLACE); }           \
    void __tsan_unaligned_read##BYTES(void* p) { emu::touch(p, BYTES, false, PLACE); } \
    void __tsan_unaligned_write##BYTES(void* p) { emu::touch(p, BYTES, true, PLACE); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* p, size_t n) { emu::touch(p, int(n), false, PLACE); }
void __tsan_write_range(void* p, size_t n) { emu::touch(p, int(n), true, PLACE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
