#include "areas.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

namespace minillm_cuda {
namespace {
constexpr size_t PAGE = 4096, SHARED_GAP = 8192;
constexpr int POISON = 0xff;                // makes every float type NaN

void* reserve(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

Area area_of(size_t bytes, void* memory = nullptr) {
    void* cells = reserve(bytes / 4 * sizeof(Cell));
    void* mine = memory || !cells ? memory : reserve(bytes);
    if (cells && mine) return {reinterpret_cast<uintptr_t>(mine), bytes, static_cast<Cell*>(cells)};
    if (cells) munmap(cells, bytes / 4 * sizeof(Cell));
    return memory || bytes < (1 << 20) ? Area() : area_of(bytes / 2);
}

// Device memory, at most: 8 GB of addresses, or what a limit on address space allows with its cells in half of it.
size_t device_bytes() {
    rlimit limit{};
    size_t bytes = size_t(8) << 30;
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY) return bytes;
    while (bytes > (1 << 20) && bytes * (2 + 2 * sizeof(Cell) / 4) > limit.rlim_cur) bytes /= 2;
    return bytes;
}

Memory& memory() {
    static auto* all = new Memory();
    return *all;
}
std::string distance(uintptr_t address, uintptr_t begin, size_t bytes) {
    if (address < begin) return say(bytes_text(begin - address), " before the beginning of ");
    if (address >= begin + bytes)
        return address == begin + bytes ? "right past the end of "
                                        : say(bytes_text(address - begin - bytes), " past the end of ");
    return say("at byte ", address - begin, " of ");
}

}  // namespace

int capability = 90;
Memory& m = memory();

Memory::Memory()
    : shared(area_of(SHARED_SLOTS * SHARED_SLOT)),
      device(area_of(device_bytes())),
      pages(static_cast<uint32_t*>(reserve(device.bytes / PAGE * 4))),
      next(device.begin + (1 << 16)) {}

const SharedVariable* shared_at(uintptr_t offset, bool nearest) {
    const SharedVariable* best = nullptr;
    for (const SharedVariable& v : launched->shared) {
        if (offset - v.offset < v.bytes) return &v;
        if (v.offset <= offset && (!best || v.offset > best->offset)) best = &v;
        else if (!best || (best->offset > offset && v.offset < best->offset)) best = &v;
    }
    return nearest ? best : nullptr;
}

std::string hexadecimal(uint64_t x) {
    char text[20];
    snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(x));
    return text;
}

std::string name_of(const Array& a) {
    return a.name.empty() ? say("device array ", 1 + (&a - m.arrays.data())) : say("`", a.name, "`");
}

std::string what_is(uintptr_t address) {
    if (m.shared.has(address) && launched) {
        const uintptr_t offset = (address - m.shared.begin) % SHARED_SLOT;
        const SharedVariable* v = shared_at(offset, true);
        if (!v) return "in shared memory, of which the kernel has none";
        return say(distance(offset, v->offset, v->bytes), "`", v->name, "` (", v->bytes, " bytes of shared memory)");
    }
    if (m.device.has(address)) {
        const Array* a = array_of(address);
        for (size_t far = PAGE; !a && far < (4u << 20); far += PAGE) {
            a = array_of(address - far);
            if (!a) a = array_of(address + far);
        }
        if (!a) return "in device memory where there is no array";
        return say(distance(address, a->begin, a->bytes), name_of(*a), " (", a->bytes, " bytes)");
    }
    if (address < 65536) return say("at the null pointer (address ", address, ")");
    return say("at an address that is no device memory (", hexadecimal(address), ")");
}

Array* array_of(uintptr_t address) {
    if (!m.device.has(address)) return nullptr;
    const uint32_t number = m.pages[(address - m.device.begin) / PAGE];
    return number ? &m.arrays[number - 1] : nullptr;
}
std::vector<Array>& arrays() { return m.arrays; }
bool in_device_memory(uintptr_t address) { return m.device.has(address); }
bool is_symbol(uintptr_t address, size_t bytes) {
    return m.globals.has(address) && address + bytes <= m.globals.begin + m.globals.bytes;
}

void* new_array(size_t bytes, bool host_may, bool managed, uintptr_t place) {
    const size_t pages = (bytes + PAGE - 1) / PAGE;
    const size_t gap = std::min<size_t>(std::max<size_t>(bytes, 1 << 16), 4 << 20) / PAGE * PAGE;
    if (bytes > m.device.bytes || m.next + pages * PAGE + 2 * gap > m.device.begin + m.device.bytes) return nullptr;
    m.next += gap;
    m.arrays.push_back({m.next, bytes, place, 0, host_may, managed, false, m.arrays.size() + 2});
    const size_t first = (m.next - m.device.begin) / PAGE;
    std::fill(m.pages + first, m.pages + first + pages, uint32_t(m.arrays.size()));
    void* pointer = reinterpret_cast<void*>(m.next);
    std::memset(pointer, POISON, bytes);
    m.next += pages * PAGE + gap;
    return pointer;
}

bool check_range(const void* pointer, size_t bytes, const char* what, uintptr_t place) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    const Array* a = array_of(address);
    if (!a && is_symbol(address, bytes)) return true;
    const char* kind = !m.device.has(address) ? "host memory" : a && a->freed_at ? "freed memory" : "out of bounds";
    if (a && !a->freed_at && address >= a->begin && address + bytes <= a->begin + a->bytes) return true;
    if (a && a->freed_at)
        found({kind, "error", say(what, " memory ", what_is(address), ", freed at {other}"), place, a->freed_at});
    else found({kind, "error", say(what, " ", bytes_text(bytes), " ", what_is(address)), place});
    return false;
}

void mark_written(const void* pointer, size_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(pointer);
    Array* a = array_of(begin);
    if (!a || a->whole) return;
    if (begin == a->begin && bytes == a->bytes) {
        a->whole = true;
        return;
    }
    for (uintptr_t byte = begin; byte < begin + bytes; byte++) {
        Cell& c = *m.device.cell(byte);
        if (c.written_for != a->id) c.written = 0;
        c.written_for = a->id;
        c.written |= 1u << byte % 4;
    }
}

uintptr_t shared_address(uintptr_t offset) { return m.shared.begin + current->block->slot * SHARED_SLOT + offset; }
uintptr_t shared_offset(uintptr_t address) { return address - shared_address(0); }

size_t shared_limit() {
    return (capability == 80 || capability == 87 ? 163 : capability >= 90 && capability < 120 ? 227 : 99) << 10;
}

void* shared_variable(const void* site, const char* name, size_t bytes, bool dynamic, uintptr_t place) {
    Launch& l = *launched;
    Block& b = *current->block;
    size_t i = 0;
    while (i < l.shared.size() && l.shared[i].site != site) i++;
    if (dynamic && i == l.shared.size())    // every `extern __shared__` array is the same memory
        for (i = 0; i < l.shared.size() && l.shared[i].site;) i++;
    if (i == l.shared.size()) {
        const size_t end = l.shared.empty() ? 0 : l.shared.back().offset + l.shared.back().bytes;
        l.shared.push_back({dynamic ? nullptr : site, name, bytes, (end + SHARED_GAP + 1023) / 1024 * 1024});
        l.shared_bytes += bytes;
        const size_t fixed = l.shared_bytes - l.dynamic_shared;
        if (!dynamic && fixed > (48u << 10))
            found({"shared memory", "error",
                   say("the kernel declares ", fixed,
                       " bytes of shared memory; ptxas allows 49152 "
                       "(more only as extern __shared__)"),
                   place});
        else if (l.shared_bytes > shared_limit())
            found({"shared memory", "error",
                   say("a block needs ", l.shared_bytes, " bytes of shared memory; this device has ", shared_limit()),
                   place});
        if (l.shared.back().offset + bytes + SHARED_GAP > SHARED_SLOT) abandon();
    }
    char* pointer = reinterpret_cast<char*>(m.shared.begin) + b.slot * SHARED_SLOT + l.shared[i].offset;
    if (b.filled.size() <= i) b.filled.resize(i + 1);
    if (b.filled[i] != b.born) {
        b.filled[i] = b.born;
        std::memset(pointer, POISON, l.shared[i].bytes);
    }
    return pointer;
}

bool in_users_code(uintptr_t pc) { return pc >= m.code && pc < m.code_end; }

namespace {
// The segments of the module that holds the kernel: its code, and the variables that it may touch.
int read_segments(dl_phdr_info* info, size_t, void* wanted) {
    const auto code = reinterpret_cast<uintptr_t>(wanted);
    uintptr_t begin = ~uintptr_t(0), end = 0, data = 0, data_end = 0, text = 0, text_end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& p = info->dlpi_phdr[i];
        if (p.p_type != PT_LOAD) continue;
        const uintptr_t from = info->dlpi_addr + p.p_vaddr, to = from + p.p_memsz;
        begin = std::min(begin, from);
        end = std::max(end, to);
        if (p.p_flags & PF_W) data = from, data_end = to;
        if (p.p_flags & PF_X) text = from, text_end = to;
    }
    if (code < begin || code >= end) return 0;
    m.module_begin = begin;
    m.module_end = end;
    m.code = text;
    m.code_end = text_end;
    if (data) m.globals = area_of((data_end - data / 4 * 4 + 3) / 4 * 4, reinterpret_cast<void*>(data / 4 * 4));
    return 1;
}
}  // namespace

void start_of_launch(Launch& l) {
    const auto code = reinterpret_cast<uintptr_t>(l.call);
    if (code < m.code || code >= m.code_end) dl_iterate_phdr(read_segments, reinterpret_cast<void*>(l.call));
    if (l.dynamic_shared) {
        l.shared.push_back({nullptr, "extern __shared__", l.dynamic_shared, SHARED_GAP});
        l.shared_bytes = l.dynamic_shared;
    }
}
}  // namespace minillm_cuda
