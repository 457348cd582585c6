// What is slow but not wrong: bank conflicts of shared memory, scattered accesses to device memory.
#include <algorithm>
#include <map>
#include <set>

#include "memory.h"
#include "report.h"

namespace minillm_cuda {
std::vector<Sample> samples;

namespace {
struct Cost {
    int64_t accesses = 0, turns = 0, least = 0;
    bool shared = false;
};

// The turns that one access of (part of) a warp takes: different words of one bank come one after another.
int bank_turns(const std::vector<const Sample*>& lanes) {
    std::set<uint64_t> words[32];
    size_t turns = 0;
    for (const Sample* s : lanes)
        for (uint64_t word = s->address / 4; word <= (s->address + s->bytes - 1) / 4; word++) {
            words[word % 32].insert(word);
            turns = std::max(turns, words[word % 32].size());
        }
    return int(turns);
}

// Lanes whose accesses go together: all 32, or with 8 or 16 bytes each a half or a quarter of them.
void add_shared(Cost& cost, const std::vector<const Sample*>& lanes) {
    const int together = lanes[0]->bytes <= 4 ? 32 : lanes[0]->bytes == 8 ? 16 : 8;
    std::map<int, std::vector<const Sample*>> phases;
    for (const Sample* s : lanes) phases[s->thread % 32 / together].push_back(s);
    for (const auto& [_, phase] : phases) {
        cost.turns += bank_turns(phase);
        cost.least++;
    }
}

void add_device(Cost& cost, const std::vector<const Sample*>& lanes) {
    std::set<uint64_t> sectors, bytes;
    for (const Sample* s : lanes) {
        for (uint64_t at = s->address; at < s->address + s->bytes; at++) bytes.insert(at);
        sectors.insert(s->address / 32);
        sectors.insert((s->address + s->bytes - 1) / 32);
    }
    cost.turns += int64_t(sectors.size());
    cost.least += int64_t(bytes.size() + 31) / 32;
}

void tell(uintptr_t pc, const Cost& cost) {
    const double factor = double(cost.turns) / double(cost.least);
    const auto tenths = [](double x) { return say(int64_t(x * 10) / 10, ".", int64_t(x * 10) % 10); };
    if (cost.shared && factor >= 2)
        found({"bank conflicts", "slow",
               say("a warp's access to shared memory takes ", tenths(factor),
                   " turns instead of 1: its threads want different words of the same bank"),
               pc});
    if (!cost.shared && factor >= 4)
        found({"uncoalesced", "slow",
               say("a warp's access moves ", tenths(factor),
                   " times the bytes it uses: its "
                   "threads' addresses are scattered over 32-byte sectors"),
               pc});
}
}  // namespace

void give_advice(uintptr_t code_base) {
    std::map<std::pair<uint32_t, uint16_t>, int> turn;                  // place, thread -> how often it was there
    std::map<std::tuple<uint32_t, int, int>, std::vector<const Sample*>> instructions;  // place, warp, how often
    for (const Sample& s : samples) instructions[{s.place, s.thread / 32, turn[{s.place, s.thread}]++}].push_back(&s);
    std::map<uint32_t, Cost> costs;
    for (const auto& [key, lanes] : instructions) {
        if (lanes.size() < 8) continue;
        Cost& cost = costs[std::get<0>(key)];
        cost.shared = lanes[0]->shared;
        cost.accesses++;
        if (cost.shared) add_shared(cost, lanes);
        else add_device(cost, lanes);
    }
    for (const auto& [place, cost] : costs) tell(code_base + place, cost);
    samples.clear();
}
}  // namespace minillm_cuda
