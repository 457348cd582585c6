// gpu/device.h on the emulator: device memory is the host's, with guard zones around each array.
#include "cuda/gpu/device.h"
#include "cuda/gpu/gpu.h"

namespace gpu {
void* allocate(size_t bytes, Stream) {
    auto* memory = static_cast<unsigned char*>(std::aligned_alloc(256, (bytes + 2 * emu::GUARD + 255) / 256 * 256));
    if (!memory) throw std::runtime_error("out of memory: asked for " + std::to_string(bytes) + " bytes");
    std::memset(memory, emu::FILL, bytes + 2 * emu::GUARD);
    emu::allocations.push_back({memory, bytes});
    emu::peak = std::max(emu::peak, emu::bytes_in_use += bytes);
    return memory + emu::GUARD;
}
void release(void* data, Stream) {
    auto& list = emu::allocations;
    for (size_t i = 0; i < list.size(); i++)
        if (list[i].memory + emu::GUARD == data) {
            std::free(list[i].memory);
            emu::bytes_in_use -= list[i].bytes;
            list.erase(list.begin() + i);
            return;
        }
}
void copy_in(void* device, const void* host, size_t bytes, Stream) { std::memcpy(device, host, bytes); }
void copy_out(void* host, const void* device, size_t bytes, Stream) { std::memcpy(host, device, bytes); }
void poison(void*, size_t, Stream) {}               // `allocate` has done so
void synchronize(Stream) {}
int64_t peak_bytes() {
    const int64_t most = emu::peak;
    emu::peak = emu::bytes_in_use;
    return most;
}
int current_device() { return 0; }
int capability() { return emu::capability; }
std::string driver_problem() { return ""; }
}  // namespace gpu
