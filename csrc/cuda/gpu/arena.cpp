#include "cuda/gpu/arena.h"

#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace gpu {
namespace {

using Blocks = std::multimap<size_t, void*>;  // by their size: a step asks for those of the one before

struct Arena {
    std::mutex lock;
    Blocks waiting, apart;  // those apart are for recordings alone
    ArenaCounts counts;
    Stream stream = nullptr;
    bool recording = false;
    int recordings = 0;
    std::vector<Graph> unwanted;  // of recordings that were let go while another was being made
    Blocks& ready() { return recording ? apart : waiting; }
};
Arena& arena() {
    static auto& one = *new Arena;  // never taken apart: Python's last arrays are freed after static objects
    return one;
}

#ifdef EMULATOR
size_t rounded(size_t bytes) { return bytes; }  // exactly, so that its guard zones lie next to the last number
void forget(void* data, size_t bytes) { std::memset(data, 0xff, bytes); }
#else
size_t rounded(size_t bytes) { return (bytes + 511) / 512 * 512; }
void forget(void*, size_t) {}
#endif

void empty(Arena& a) {
    for (auto [bytes, data] : a.waiting) {
        release(data, a.stream);
        a.counts.kept -= bytes;
    }
    a.waiting.clear();
}

void* new_block(Arena& a, size_t bytes) {
    a.counts.allocations++;
    if (a.recording) return allocate_at_once(bytes);
    try {
        return allocate(bytes, a.stream);
    } catch (const std::runtime_error&) {  // perhaps there is enough, but in blocks of other sizes
        empty(a);
        synchronize(a.stream);
        return allocate(bytes, a.stream);
    }
}

void give_back(void* data, size_t bytes) {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    a.ready().emplace(bytes, data);
    a.counts.in_use -= bytes;
    a.counts.kept += bytes;
}

}  // namespace

Stream current_stream() { return arena().stream; }
void use_stream(Stream stream) {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    synchronize(a.stream);  // what waits may still be read by work on the stream before
    a.stream = stream;
}

std::shared_ptr<void> take(size_t wanted) {
    if (!wanted) return nullptr;
    Arena& a = arena();
    const size_t bytes = rounded(wanted);
    void* data;
    {
        const std::lock_guard<std::mutex> held(a.lock);
        if (auto found = a.ready().find(bytes); found != a.ready().end()) {
            data = found->second;
            a.ready().erase(found);
            a.counts.kept -= bytes;
            forget(data, bytes);
        } else data = new_block(a, bytes);
        a.counts.in_use += bytes;
    }
    return {data, [bytes](void* block) { give_back(block, bytes); }};
}

ArenaCounts arena_counts() {
    const std::lock_guard<std::mutex> held(arena().lock);
    return arena().counts;
}

void Recording::begin() {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    begin_recording(a.stream);
    a.recording = true;
    a.apart.merge(a.waiting);
}

// What is apart goes back with the last recording, once the device is done with it. Nothing may be waited for while one is
// made: its end comes here again.
static void leave(Arena& a) {
    if (a.recording) return;
    if (a.unwanted.empty() && a.recordings) return;
    synchronize(a.stream);
    for (; !a.unwanted.empty(); a.unwanted.pop_back(), a.recordings--) forget(a.unwanted.back());
    if (!a.recordings) a.waiting.merge(a.apart);
}

Recording::Recording() {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    a.recording = false;
    graph = end_recording(a.stream);
    a.recordings++;
    leave(a);
}

Recording::~Recording() {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    a.unwanted.push_back(graph);
    try {
        leave(a);  // Python's collector of cycles may come here at any moment, also while another is made
    } catch (const std::runtime_error&) {}  // of a kernel that failed: the next call says so
}

void Recording::give_up() {
    Arena& a = arena();
    const std::lock_guard<std::mutex> held(a.lock);
    if (!std::exchange(a.recording, false)) return;
    try {
        forget(end_recording(a.stream));
    } catch (const std::runtime_error&) {}  // of the error that ended it
    leave(a);
}

void empty_arena() {
    const std::lock_guard<std::mutex> held(arena().lock);
    empty(arena());
}
}  // namespace gpu
