// Inline PTX that touches memory: ld, st, cp.async, atom, red.
#include <cstring>

#include "../atomics.h"
#include "ptx.h"
#include "report.h"

namespace minillm_cuda {
namespace {
unsigned bytes_of(const std::string& type) {
    if (type.find("128") != std::string::npos) return 16;
    return type.find("64") != std::string::npos     ? 8
           : type.find("32") != std::string::npos   ? 4
           : type.find("16x2") != std::string::npos ? 4
           : type.find("16") != std::string::npos   ? 2
                                                    : 1;
}

void load_or_store(PtxRun& run, const Instruction& i, bool load) {
    const Operand& where = i.operands[load ? 1 : 0];
    const Operand& what = i.operands[load ? 0 : 1];
    const unsigned bytes = bytes_of(i.type());
    const std::vector<Operand> parts = what.kind == Operand::VECTOR ? what.parts : std::vector<Operand>{what};
    uintptr_t address = run.address(where, i.has("shared"));
    const unsigned extra = i.has("volatile") || i.has("relaxed") || i.has("acquire") || i.has("release") ? VOLATILE : 0;
    if (i.has("release")) fence();
    touch(address, bytes * parts.size(), (load ? READ : WRITE) | extra, run.place);
    for (const Operand& part : parts) {
        uint64_t value = load ? 0 : run.get(part);
        if (load) std::memcpy(&value, reinterpret_cast<void*>(address), bytes);
        else std::memcpy(reinterpret_cast<void*>(address), &value, bytes);
        if (load && bytes < 8 && i.type()[0] == 's')
            value = uint64_t(int64_t(value << (64 - 8 * bytes)) >> (64 - 8 * bytes));
        if (load) run.set(part, value);
        address += bytes;
    }
}

template <class T>
uint64_t combined(const Instruction& i, uint64_t old_bits, uint64_t x_bits, uint64_t y_bits) {
    const T old = as<T>(old_bits), x = as<T>(x_bits);
    if (i.has("add")) return bits_of(T(old + x));
    if (i.has("min")) return bits_of(x < old ? x : old);
    if (i.has("max")) return bits_of(old < x ? x : old);
    if (i.has("exch")) return x_bits;
    if (i.has("cas")) return old_bits == x_bits ? y_bits : old_bits;
    if (i.has("and")) return old_bits & x_bits;
    if (i.has("or")) return old_bits | x_bits;
    if (i.has("xor")) return old_bits ^ x_bits;
    return bits_of(T(old >= x ? T(0) : T(old + T(1))));     // inc
}

void atomic(PtxRun& run, const Instruction& i, bool returns) {
    const size_t first = returns ? 1 : 0;
    const unsigned bytes = bytes_of(i.type());
    const uintptr_t address = run.address(i.operands[first], i.has("shared"));
    if (i.has("release") || i.has("acq_rel")) fence();
    minillm_cuda_atomic(reinterpret_cast<void*>(address), bytes, 1, reinterpret_cast<void*>(run.place));
    uint64_t old = 0;
    std::memcpy(&old, reinterpret_cast<void*>(address), bytes);
    const uint64_t x = run.get(i.operands[first + 1]),
                   y = i.operands.size() > first + 2 ? run.get(i.operands[first + 2]) : 0;
    const std::string& t = i.type();
    const uint64_t now = t == "f32"   ? combined<float>(i, old, x, y)
                         : t == "f64" ? combined<double>(i, old, x, y)
                         : t == "s32" ? combined<int32_t>(i, old, x, y)
                         : t == "s64" ? combined<int64_t>(i, old, x, y)
                         : bytes == 8 ? combined<uint64_t>(i, old, x, y)
                                      : combined<uint32_t>(i, old, x, y);
    std::memcpy(reinterpret_cast<void*>(address), &now, bytes);
    if (returns) run.set(i.operands[0], old);
}
}  // namespace

void copy_later(uintptr_t to, uintptr_t from, size_t bytes, size_t filled, uintptr_t place) {
    if ((to | from) % bytes && !known("misaligned", place, 0))
        found({"misaligned", "error",
               say("an asynchronous copy of ", bytes, " bytes needs both addresses at a multiple of it"), place});
    if (filled) touch(from, filled, READ, place);
    uint64_t data[2] = {};
    std::memcpy(data, reinterpret_cast<void*>(from), filled);
    const uint64_t low = data[0], high = data[1];
    current->copies.back().push_back([=] {
        const uint64_t words[2] = {low, high};
        touch(to, bytes, WRITE, place);
        std::memcpy(reinterpret_cast<void*>(to), words, bytes);
    });
}
void commit_copies() { current->copies.emplace_back(); }
void wait_for_copies(size_t groups_left) {
    auto& groups = current->copies;
    while (groups.size() > groups_left + 1) {
        const auto first = groups.front();
        groups.erase(groups.begin());
        for (const auto& copy : first) copy();
    }
}

bool memory_instruction(PtxRun& run, const Instruction& i) {
    const std::string& op = i.words[0];
    if (op == "ld" || op == "ldu" || op == "st") {
        load_or_store(run, i, op != "st");
    } else if (op == "atom" || op == "red") {
        atomic(run, i, op == "atom");
    } else if (op == "cp" && i.words[1] == "async" && i.has("commit_group")) {
        commit_copies();
    } else if (op == "cp" && i.words[1] == "async" && (i.has("wait_group") || i.has("wait_all"))) {
        if (i.has("wait_all")) commit_copies();
        wait_for_copies(i.has("wait_all") ? 0 : size_t(run.get(i.operands[0])));
    } else if (op == "cp" && i.words[1] == "async" && !i.has("bulk") && !i.has("mbarrier")) {
        const size_t bytes = size_t(run.get(i.operands[2]));
        const bool sized = i.operands.size() > 3 && !i.has("cache_hint");
        const size_t filled = sized ? size_t(run.get(i.operands[3]) & 31) : bytes;
        if (bytes != 4 && bytes != 8 && bytes != 16) return false;
        copy_later(run.address(i.operands[0], true), run.address(i.operands[1], false), bytes,
                   filled < bytes ? filled : bytes, run.place);
    } else {
        return false;
    }
    return true;
}
}  // namespace minillm_cuda

extern "C" {
void minillm_cuda_copy_async(void* to, const void* from, size_t bytes, size_t zeros) {
    minillm_cuda::copy_later(uintptr_t(to), uintptr_t(from), bytes, bytes - zeros,
                             reinterpret_cast<uintptr_t>(__builtin_return_address(0)));
}
void minillm_cuda_commit_copies() { minillm_cuda::commit_copies(); }
void minillm_cuda_wait_for_copies(unsigned groups_left) { minillm_cuda::wait_for_copies(groups_left); }
}
