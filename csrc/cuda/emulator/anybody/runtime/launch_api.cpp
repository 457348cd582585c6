// Launches: are their numbers such that a device would run them, and does the host look at the error?
#include <algorithm>
#include <cstring>
#include <map>

#include "../host.h"
#include "../interface.h"
#include "host_state.h"
#include "report.h"

using namespace minillm_cuda;

namespace minillm_cuda {
cudaError_t last_error = cudaSuccess;
std::vector<UncheckedLaunch> unchecked;

cudaError_t keep(cudaError_t error) {
    if (error) last_error = error;
    return error;
}
}  // namespace minillm_cuda

namespace {
std::map<std::string, int>& dynamic_limits() {      // cudaFuncSetAttribute, by the kernel's name
    static auto* all = new std::map<std::string, int>();
    return *all;
}

// "(const void*) k<float, 4>, grid, ..." -> "k"
std::string base_name(const std::string& call) {
    size_t from = 0;
    if (!call.empty() && call[0] == '(') from = call.find(')') + 1;
    while (from < call.size() && !std::isalpha(static_cast<unsigned char>(call[from])) && call[from] != '_') from++;
    size_t to = from;
    while (to < call.size() &&
           (std::isalnum(static_cast<unsigned char>(call[to])) || call[to] == '_' || call[to] == ':'))
        to++;
    return call.substr(from, to - from);
}

std::string complaint(const Launch& l, uint64_t threads, cudaError_t* error) {
    *error = cudaErrorInvalidConfiguration;
    const Index &g = l.grid, &b = l.size;
    if (!g.x || !g.y || !g.z) return say("the grid is empty: ", g.x, " x ", g.y, " x ", g.z);
    if (!threads) return say("the block is empty: ", b.x, " x ", b.y, " x ", b.z);
    if (threads > 1024 || b.x > 1024 || b.y > 1024 || b.z > 64)
        return say("a block has at most 1024 threads (1024 x 1024 x 64): got ", b.x, " x ", b.y, " x ", b.z, " = ",
                   threads);
    if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        return say("a grid has at most 2147483647 x 65535 x 65535 blocks: got ", g.x, " x ", g.y, " x ", g.z);
    *error = cudaErrorInvalidValue;
    const auto own = dynamic_limits().find(base_name(l.name));
    const size_t allowed = own == dynamic_limits().end() ? 48 << 10 : std::max(own->second, 48 << 10);
    if (l.dynamic_shared > shared_limit())
        return say("a block has at most ", shared_limit(), " bytes of shared memory: got ", l.dynamic_shared);
    if (l.dynamic_shared > allowed)
        return say("more than ", allowed, " bytes of dynamic shared memory need cudaFuncSetAttribute(",
                   base_name(l.name), ", cudaFuncAttributeMaxDynamicSharedMemorySize, ...): got ", l.dynamic_shared);
    *error = cudaErrorCooperativeLaunchTooLarge;
    if (l.cooperative && uint64_t(g.x) * g.y * g.z > std::min<uint64_t>(DEVICE_SMS * (2048 / threads), 64))
        return say("a cooperative launch must fit on the device at once: ", DEVICE_SMS,
                   " multiprocessors of 2048 threads");
    return "";
}
}  // namespace

extern "C" {
int minillm_cuda_launch(const char* file, int line, const char* name, const uint3* grid, const uint3* block,
                        size_t shared, int cooperative, void (*call)(void*), void* arguments, size_t bytes) {
    Launch l;
    l.file = file;
    l.name = name;
    l.line = line;
    l.grid = {grid->x, grid->y, grid->z};
    l.size = {block->x, block->y, block->z};
    l.dynamic_shared = shared;
    l.cooperative = cooperative;
    l.call = call;
    l.arguments = arguments;
    l.arguments_bytes = bytes;
    if (current) {
        found({"unsupported", "error", "a kernel launches a kernel: dynamic parallelism is not emulated", 0, 0, file,
               line});
        return cudaErrorNotSupported;
    }
    if (broken) return last_error = broken;
    const uint64_t threads = uint64_t(block->x) * block->y * block->z;
    unchecked.push_back({file, line, name});
    cudaError_t error;
    const std::string why = complaint(l, threads, &error);
    if (!why.empty()) {
        found({"launch", "error", say(name, " does not run: ", why), 0, 0, file, line});
        return keep(error);
    }
    l.threads_per_block = int(threads);
    error = cudaError_t(run_launch(l));
    if (l.refused) return keep(cudaError_t(l.refused));
    if (error) broken = error;
    return cudaSuccess;                     // faults of a running kernel come out at the next synchronisation
}

cudaError_t minillm_cuda_attribute(const char* call, int attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || size_t(value) > shared_limit()) return keep(cudaErrorInvalidValue);
    dynamic_limits()[base_name(call)] = value;
    return cudaSuccess;
}
cudaError_t minillm_cuda_occupancy(int* blocks, int threads, size_t shared) {
    *blocks = threads > 0 ? std::min(32, 2048 / threads) : 0;
    if (shared) *blocks = std::min(*blocks, int(shared_limit() / shared));
    return cudaSuccess;
}
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = broken;
    unchecked.clear();
    return error;
}
void minillm_cuda_looked_at() {
    if (!unchecked.empty()) unchecked.pop_back();
}
cudaError_t cudaPeekAtLastError() {
    unchecked.clear();
    return last_error;
}

void minillm_cuda_seed(unsigned seed) { schedule = seed; }
void minillm_cuda_name(const void* array, const char* name) {
    if (Array* a = array_of(uintptr_t(array))) a->name = name;
}
void minillm_cuda_capability(int value) { capability = value; }
void minillm_cuda_seconds(double value) { seconds = value; }
int minillm_cuda_errors() { return errors_found(); }
void* minillm_cuda_allocation(const void* pointer, unsigned long* bytes) {
    const Array* a = array_of(uintptr_t(pointer));
    if (!a || a->freed_at) return nullptr;
    if (bytes) *bytes = a->bytes;
    return reinterpret_cast<void*>(a->begin);
}
void minillm_cuda_finish() {
    static bool finished = false;
    if (finished) return;
    finished = true;
    for (const UncheckedLaunch& u : unchecked)
        found({"unchecked launch", "note",
               say("nobody asks whether ", u.name,
                   " was launched: cudaGetLastError() after it "
                   "would tell"),
               0, 0, u.file, u.line});
    for (const Array& a : arrays())
        if (!a.freed_at) found({"leak", "note", say(name_of(a), " (", a.bytes, " bytes) is never freed"), a.made_at});
    write_counts();
}
}

namespace {
struct AtExit {
    ~AtExit() { minillm_cuda_finish(); }
} at_exit;
}  // namespace
