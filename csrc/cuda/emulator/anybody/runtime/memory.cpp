#include "memory.h"

#include <cstring>

#include "areas.h"
#include "resources.h"

namespace minillm_cuda {
uintptr_t last_place = 0;
bool launches_pending = false;

namespace {
constexpr size_t MOST_SAMPLES = 1 << 18;

// Two writes without order may write the same value: known only when the second has happened.
struct Pending {
    uintptr_t address = 0, place, other;
    size_t bytes;
    unsigned char old[16];
    std::string text;
} pending;

void settle() {
    const bool same = !std::memcmp(pending.old, reinterpret_cast<void*>(pending.address), pending.bytes);
    const char* kind = same ? "same value" : "race";
    pending.address = 0;
    if (known(kind, pending.place, pending.other)) return;
    found({kind, same ? "note" : "error", pending.text, pending.place, pending.other});
}

const char* verb(unsigned flags) { return flags & ATOMIC ? "atomically updates" : flags & WRITE ? "writes" : "reads"; }
void race(const Cell& c, int slot, uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    const uintptr_t other = m.code + (c.what[slot] & 0x3ffffff);
    const unsigned then = c.what[slot] >> 30;
    if (known("race", place, other)) return;
    const uint64_t serial = c.who[slot] >> 40;
    const int thread = int(c.who[slot] >> 30 & 1023);
    const bool here = serial == current->block->serial;
    const std::string text = say(what_is(address), ": this thread ", verb(flags), " it and thread ", thread,
                                 here ? " of the same block" : " of another block", " ", verb(then),
                                 " it at {other}, with nothing between that orders the two");
    if ((flags & then & WRITE) && !((flags | then) & ATOMIC) && bytes <= 16) {
        pending = {address, place, other, bytes, {}, text};
        std::memcpy(pending.old, reinterpret_cast<void*>(address), bytes);
    } else {
        found({"race", "error", text, place, other});
    }
}

bool ordered(uint64_t who, uintptr_t address) {
    const uint64_t serial = who >> 40;
    const Block& mine = *current->block;
    if (serial == mine.serial) return knows_of(*current, int(who >> 30 & 1023), uint32_t(who & 0x3fffffff));
    return serial < launched->first_serial || serial <= mine.acquired || m.shared.has(address);
}

// Hold one access to (part of) a word against the last ones, then remember it.
void compare(Cell& c, unsigned mask, unsigned flags, uint64_t who, uintptr_t address, size_t bytes, uintptr_t place) {
    const unsigned now = flags & (WRITE | ATOMIC);
    const uint32_t what = uint32_t(place - m.code) & 0x3ffffff;
    int slot = -1;
    for (int i = 0; i < 4; i++) {
        const uint64_t them = c.who[i];
        if (!them) {
            slot = slot < 0 ? i : slot;
            break;
        }
        const unsigned then = c.what[i] >> 30, their_mask = c.what[i] >> 26 & 15;
        if (them >> 30 == who >> 30) {
            if (then == now && their_mask == mask) slot = i;
        } else if (ordered(them, address)) {
            slot = slot < 0 ? i : slot;
        } else if ((mask & their_mask) && ((then | now) & WRITE) && !(then & now & ATOMIC)) {
            race(c, i, address, bytes, flags, place);
        }
    }
    if (slot < 0) slot = int(who & 3);
    c.who[slot] = who;
    c.what[slot] = what | mask << 26 | now << 30;
}

void uninitialised(uintptr_t address, size_t bytes, uintptr_t place, uintptr_t made_at) {
    if (known("uninitialised", place, made_at)) return;
    found({"uninitialised", "error",
           say(what_is(address), ": ", bytes_text(bytes), " are read before anybody wrote them"), place, made_at});
}

void history(const Area& area, uintptr_t address, size_t bytes, unsigned flags, uintptr_t place, uint64_t owner,
             bool whole, uintptr_t made_at) {
    const Thread& me = *current;
    const uint64_t who = me.block->serial << 40 | uint64_t(me.number) << 30 | me.clock;
    const uintptr_t end = address + bytes;
    for (uintptr_t word = address & ~uintptr_t(3); word < end; word += 4) {
        Cell& c = *area.cell(word);
        unsigned mask = 15;
        if (word < address) mask &= 15u << (address - word);
        if (end < word + 4) mask &= 15u >> (word + 4 - end);
        if (c.written_for != owner) {
            c.written_for = owner;
            c.written = whole ? 15 : 0;
        }
        if (!whole && (!(flags & WRITE) || (flags & (ATOMIC | ONLY_WRITES)) == ATOMIC) && (c.written & mask) != mask) {
            uninitialised(address, bytes, place, made_at);
        }
        if (flags & WRITE) c.written |= mask;
        compare(c, mask, flags, who, address, bytes, place);
        if (pending.address && pending.address + 4 <= word) break;      // one report for a vector is enough
    }
}

void outside(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    if (known("out of bounds", place, 0)) return;
    found({"out of bounds", "error", say(verb(flags), " ", bytes_text(bytes), " ", what_is(address)), place});
}

void sample(uintptr_t address, size_t bytes, uintptr_t place, bool shared) {
    if (current->block->sampled && samples.size() < MOST_SAMPLES)
        samples.push_back({uint32_t(place - m.code), uint16_t(current->number), uint8_t(bytes), shared, address});
}

void touch_shared(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    const uintptr_t offset = address - m.shared.begin - current->block->slot * SHARED_SLOT;
    if (offset >= SHARED_SLOT) {
        if (!known("out of bounds", place, 1))
            found({"out of bounds", "error", say(verb(flags), " the shared memory of another block"), place, 0});
        return;
    }
    const SharedVariable* v = shared_at(offset, false);
    if (!v || offset + bytes > v->offset + v->bytes) return outside(address, bytes, flags, place);
    if (!(flags & UNSAMPLED)) sample(address, bytes, place, true);
    history(m.shared, address, bytes, flags, place, current->block->born, false, 0);
}

void touch_device(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    Array* a = array_of(address);
    if (!a || address < a->begin || address + bytes > a->begin + a->bytes) return outside(address, bytes, flags, place);
    if (a->freed_at) {
        if (!known("freed memory", place, a->freed_at))
            found({"freed memory", "error",
                   say(verb(flags), " memory ", what_is(address), ", which was freed at {other}"), place, a->freed_at});
        return;
    }
    if (!(flags & UNSAMPLED)) sample(address, bytes, place, false);
    history(m.device, address, bytes, flags, place, a->id, a->whole, a->made_at);
}

void touch_other(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    if (address - reinterpret_cast<uintptr_t>(launched->arguments) < launched->arguments_bytes) return;
    if (m.globals.has(address)) {
        history(m.globals, address, bytes, flags, place, 1, true, 0);
        return;
    }
    if (address >= m.module_begin && address < m.module_end && !(flags & WRITE)) return;    // literals and tables
    if (known("host memory", place, 0)) return;
    found({"host memory", "error", say("the kernel ", verb(flags), " ", bytes_text(bytes), " ", what_is(address)),
           place});
}

void touch_from_host(uintptr_t address, unsigned flags, uintptr_t place) {
    if (!m.device.has(address)) return;
    const Array* a = array_of(address);
    if (a && a->managed && launches_pending) {
        if (!known("device memory", place, 1))
            found({"device memory", "error",
                   "the host touches managed memory while a kernel may still run: no "
                   "cudaDeviceSynchronize stands between",
                   place, 0});
    } else if (!a || !a->host_may || a->freed_at) {
        if (!known("device memory", place, 0))
            found({"device memory", "error", say("the host ", verb(flags), " device memory (", what_is(address), ")"),
                   place});
    }
}
}  // namespace

void touch(uintptr_t address, size_t bytes, unsigned flags, uintptr_t place) {
    if (!current) return touch_from_host(address, flags, place);
    if (pending.address) settle();
    if (address - stacks < stacks_bytes) return;
    last_place = place;
    if (++current->steps > 50000) {
        current->steps = 0;
        give_way();
    }
    if (address % bytes && !(flags & UNALIGNED) && bytes <= 16 && !known("misaligned", place, 0))
        found({"misaligned", "error",
               say(verb(flags), " ", bytes, " bytes at once, ", what_is(address),
                   ", an address that is not a multiple of ", bytes),
               place});
    if ((flags & WRITE) && !(flags & (ATOMIC | VOLATILE))) current->fenced = false;
    if (m.shared.has(address)) return touch_shared(address, bytes, flags, place);
    if (flags & VOLATILE) {                 // flags between blocks are polled and set so
        flags |= ATOMIC;
        atomic_order(address);
    }
    if (m.device.has(address)) return touch_device(address, bytes, flags, place);
    touch_other(address, bytes, flags, place);
}

void end_of_block(Block& block) {
    check_registers(block);
    if (pending.address) settle();
    if (block.sampled && !launched->abandoned) give_advice(m.code);
    samples.clear();
}
void end_of_launch(Launch&) {
    if (pending.address) settle();
    launches_pending = true;
}
}  // namespace minillm_cuda
