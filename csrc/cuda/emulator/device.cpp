// gpu/device.h on the emulator: device memory is the host's, with guard zones around each array.
#include <utility>

#include "cuda/gpu/device.h"
#include "cuda/gpu/gpu.h"

namespace gpu {
void* allocate(size_t bytes, Stream stream) {
    auto* memory = static_cast<unsigned char*>(std::aligned_alloc(256, (bytes + 2 * emu::GUARD + 255) / 256 * 256));
    if (!memory) throw std::runtime_error("out of memory: asked for " + std::to_string(bytes) + " bytes");
    std::memset(memory + emu::GUARD, emu::FILL, bytes);
    static int made = 0;
    made = (made + 1) % emu::SHARED_GUARD;
    emu::make_guards(memory + emu::GUARD, bytes, made);
    emu::allocations.push_back({memory, bytes, stream, made});
    emu::peak = std::max(emu::peak, emu::bytes_in_use += bytes);
    return memory + emu::GUARD;
}
void* allocate_at_once(size_t bytes) {
    void* data = allocate(bytes, nullptr);
    emu::allocations.back().settled = true;
    return data;
}
void release(void* data, Stream stream) {
    auto& list = emu::allocations;
    for (size_t i = 0; i < list.size(); i++)
        if (list[i].begin() == data) {
            if (const std::string why = emu::out_of_order(list[i], stream, "a release frees"); !why.empty())
                emu::fault_of_a_release = why;
            std::free(list[i].memory);
            emu::bytes_in_use -= list[i].bytes;
            list.erase(list.begin() + i);
            return;
        }
}

void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    emu::refuse_in_recording("a copy from the host");
    emu::use_array(device, stream, "a copy writes");
    std::memcpy(device, host, bytes);
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    emu::refuse_in_recording("a copy to the host");
    emu::use_array(device, stream, "a copy reads");
    std::memcpy(host, device, bytes);
}
void copy_within(void* to, const void* from, size_t bytes, Stream stream) {
    emu::use_array(to, stream, "a copy writes");
    emu::use_array(from, stream, "a copy reads");
    emu::submit([=] { std::memmove(to, from, bytes); });
}
void clear(void* device, size_t bytes, Stream stream) {
    emu::use_array(device, stream, "a fill writes");
    emu::submit([=] { std::memset(device, 0, bytes); });
}
void poison(void*, size_t, Stream) {}               // `allocate` has done so
void synchronize(Stream stream) {
    emu::refuse_in_recording("a wait");
    for (emu::Allocation& a : emu::allocations) a.settled |= a.stream == stream;
}

Stream new_stream() { return nullptr; }
void begin_recording(Stream) {
    emu::refuse_in_recording("another recording");
    emu::recording = new emu::Recording;
}
Graph end_recording(Stream) { return std::exchange(emu::recording, nullptr); }
void replay(Graph graph, Stream) {
    for (const auto& work : *static_cast<emu::Recording*>(graph)) work();
}
void forget(Graph graph) { delete static_cast<emu::Recording*>(graph); }

int64_t peak_bytes() {
    const int64_t most = emu::peak;
    emu::peak = emu::bytes_in_use;
    return most;
}
int multiprocessors() { return 4; }                 // so that a block of few has more than one tile
int current_device() { return 0; }
int capability() { return emu::capability; }
std::string driver_problem() { return ""; }
}  // namespace gpu
