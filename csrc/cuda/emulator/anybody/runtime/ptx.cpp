#include "ptx.h"

#include <cctype>
#include <cstring>

#include "report.h"
#include "resources.h"

namespace minillm_cuda {
namespace {
struct Reader {
    const char* at;
    void skip() {
        for (;; at++)
            if (at[0] == '/' && at[1] == '/')
                while (*at && *at != '\n') at++;
            else if (!*at || !std::isspace(static_cast<unsigned char>(*at))) return;
    }
    bool take(char c) {
        skip();
        if (*at != c) return false;
        at++;
        return true;
    }
    std::string word() {
        skip();
        const char* from = at;
        while (std::isalnum(static_cast<unsigned char>(*at)) || std::strchr("_.$%:", *at ? *at : ' ')) at++;
        return std::string(from, at);
    }
    Operand operand() {
        Operand o;
        if (take('{')) {
            o.kind = Operand::VECTOR;
            while (!take('}') && *at) {
                o.parts.push_back(operand());
                take(',');
            }
            return o;
        }
        if (take('[')) {
            o.kind = Operand::ADDRESS;
            o.parts.push_back(operand());
            if (take('+')) o.number = operand().number;
            take(']');
            return o;
        }
        const bool negative = take('-'), inverted = take('!');
        std::string name = word();
        const size_t start = name.find_first_not_of('%');
        const bool register_ = start != 0;
        name = start == std::string::npos ? "" : name.substr(start);
        const bool digit = !name.empty() && std::isdigit(static_cast<unsigned char>(name[0]));
        o.kind = digit ? (register_ ? Operand::ARGUMENT : Operand::NUMBER) : Operand::REGISTER;
        o.name = inverted ? "!" + name : name;
        if (o.kind == Operand::ARGUMENT) o.number = std::stoull(name);
        if (o.kind == Operand::NUMBER) o.number = number(name);
        if (negative) o.number = uint64_t(-int64_t(o.number));
        if (take('|')) o.parts.push_back(operand());
        return o;
    }
    static uint64_t number(const std::string& text) {
        if (text.size() > 2 && (text[1] == 'f' || text[1] == 'F') && text[0] == '0')
            return std::stoull(text.substr(2), nullptr, 16);
        if (text.size() > 2 && (text[1] == 'd' || text[1] == 'D') && text[0] == '0')
            return std::stoull(text.substr(2), nullptr, 16);
        return std::stoull(text, nullptr, 0);
    }
};

std::vector<std::string> split(const std::string& opcode) {
    std::vector<std::string> words;
    for (size_t from = 0; from <= opcode.size();) {
        size_t to = opcode.find('.', from);
        if (to == std::string::npos) to = opcode.size();
        words.push_back(opcode.substr(from, to - from));
        from = to + 1;
    }
    return words;
}

uint64_t special(const std::string& name, uintptr_t place) {
    const Thread& me = *current;
    const Index &block = me.block->index, &size = launched->size, &grid = launched->grid;
    const std::map<std::string, uint64_t> all = {{"laneid", uint64_t(me.lane)},
                                                 {"warpid", uint64_t(me.number / 32)},
                                                 {"nwarpid", 64},
                                                 {"smid", 0},
                                                 {"nsmid", 4},
                                                 {"tid.x", me.id.x},
                                                 {"tid.y", me.id.y},
                                                 {"tid.z", me.id.z},
                                                 {"ntid.x", size.x},
                                                 {"ntid.y", size.y},
                                                 {"ntid.z", size.z},
                                                 {"ctaid.x", block.x},
                                                 {"ctaid.y", block.y},
                                                 {"ctaid.z", block.z},
                                                 {"nctaid.x", grid.x},
                                                 {"nctaid.y", grid.y},
                                                 {"nctaid.z", grid.z},
                                                 {"lanemask_eq", 1u << me.lane},
                                                 {"lanemask_lt", (1u << me.lane) - 1},
                                                 {"lanemask_le", (2ull << me.lane) - 1},
                                                 {"lanemask_gt", 0xffffffffu & ~((2ull << me.lane) - 1)},
                                                 {"lanemask_ge", 0xffffffffu & ~((1ull << me.lane) - 1)},
                                                 {"clock", uint64_t(clock64()) & 0xffffffffu},
                                                 {"clock64", uint64_t(clock64())},
                                                 {"globaltimer", uint64_t(clock64())},
                                                 {"WARP_SZ", 32}};
    const auto place_of = all.find(name);
    if (place_of != all.end()) return place_of->second;
    if (!known("unsupported", place, 0))
        found({"unsupported", "error",
               say("inline PTX reads `", name, "`, which is no register that the emulator knows"), place});
    return 0;
}

bool other_instruction(PtxRun& run, const Instruction& i) {
    const std::string& op = i.words[0];
    const auto value = [&](size_t n) { return n < i.operands.size() ? run.get(i.operands[n]) : 0; };
    if (op == "bar" || op == "barrier") {
        if (i.has("arrive") || i.has("red")) return false;
        if (i.has("warp")) gather(Kind::sync, unsigned(value(0)), nullptr, 0, run.place);
        else
            block_barrier(int(value(0)) & 15, int(value(1)) == launched->threads_per_block ? 0 : int(value(1)), 0,
                          run.place);
    } else if (op == "shfl") {
        const std::string& mode = i.words[2];
        const unsigned c = unsigned(value(3)), mask = i.operands.size() > 4 ? unsigned(value(4)) : ~0u;
        const int width = 32 - int(c >> 8 & 31);
        const int which = mode == "idx" ? 0 : mode == "up" ? 1 : mode == "down" ? 2 : 3;
        run.set(i.operands[0], shuffle_lanes(which, mask, value(1), int(value(2)), width, run.place) & 0xffffffffu);
        if (!i.operands[0].parts.empty()) {
            const int lane = current->lane, operand = int(value(2)), first = lane & ~(width - 1);
            const int from = which == 0   ? first + operand
                             : which == 1 ? lane - operand
                             : which == 2 ? lane + operand
                                          : lane ^ operand;
            run.set(i.operands[0].parts[0], from >= first && from < first + width);
        }
    } else if (op == "vote") {
        unsigned present;
        const unsigned bits =
            lane_votes(unsigned(i.operands.size() > 2 ? value(2) : ~0u), int(value(1)), run.place, &present);
        run.set(i.operands[0], i.has("ballot") ? bits : i.has("all") ? bits == present : bits != 0);
    } else if (op == "membar" || op == "fence") {
        fence();
    } else if (op == "prefetch" || op == "prefetchu" || op == "griddepcontrol" || op == "pragma" || op == "discard") {
    } else if (op == "createpolicy") {
        run.set(i.operands[0], 0);
    } else if (op == "setmaxnreg") {
        set_registers(int(value(0)), i.has("inc"), run.place);
    } else if (op == "nanosleep") {
        give_way();
    } else if (op == "trap") {
        found({"crash", "error", "the kernel traps", run.place});
        abandon();
    } else {
        return false;
    }
    return true;
}
}  // namespace

bool Instruction::has(const char* word) const {
    for (const std::string& w : words)
        if (w == word) return true;
    return false;
}

std::vector<Instruction> read_ptx(const char* text) {
    std::vector<Instruction> all;
    Reader r{text};
    for (r.skip(); *r.at; r.skip()) {
        if (r.take('{') || r.take('}') || r.take(';')) continue;
        Instruction i;
        if (r.take('@')) {
            i.negated = r.take('!');
            i.predicate = r.word();
            i.predicate.erase(0, i.predicate.find_first_not_of('%'));
        }
        i.text = r.word();
        if (i.text.empty()) {
            i.text = std::string(1, *r.at++);
        } else if (i.text[0] == '.') {                  // .reg declares registers, which begin as they are written
            while (*r.at && *r.at != ';') r.at++;
            continue;
        }
        i.words = split(i.text);
        for (r.skip(); *r.at && *r.at != ';' && *r.at != '\n';) {
            const char* before = r.at;
            i.operands.push_back(r.operand());
            r.take(',');
            r.skip();
            if (r.at == before) r.at++;
        }
        all.push_back(i);
    }
    return all;
}

uint64_t PtxRun::get(const Operand& o) const {
    if (o.kind == Operand::NUMBER) return o.number;
    if (o.kind == Operand::ARGUMENT) return o.number < uint64_t(count) ? arguments[o.number].value : 0;
    if (o.kind == Operand::VECTOR) {                    // {low, high} of a wider register
        uint64_t all = 0;
        for (size_t i = 0; i < o.parts.size(); i++) all |= get(o.parts[i]) << (i * 64 / (o.parts.size() * 2));
        return all;
    }
    const bool inverted = o.name[0] == '!';
    const std::string name = inverted ? o.name.substr(1) : o.name;
    const auto mine = registers.find(name);
    const uint64_t value = mine != registers.end() ? mine->second : special(name, place);
    return inverted ? !value : value;
}

void PtxRun::set(const Operand& o, uint64_t value) {
    if (o.kind == Operand::REGISTER) {
        registers[o.name] = value;
    } else if (o.kind == Operand::ARGUMENT && o.number < uint64_t(count)) {
        PtxOperand& a = arguments[o.number];
        a.value = value;
        if (a.constraint[0] == '=' || a.constraint[0] == '+') std::memcpy(a.to, &value, a.bytes);
    }
}

uintptr_t PtxRun::address(const Operand& o, bool shared) const {
    const uint64_t base = get(o.parts.empty() ? o : o.parts[0]) + o.number;
    return shared && base < (1u << 30) ? shared_address(base) : base;
}

void PtxRun::step(const Instruction& i) {
    if (!i.predicate.empty()) {
        const bool on = registers.count(i.predicate) && registers[i.predicate];
        if (on == i.negated) return;
    }
    if (matrix_instruction(*this, i) || memory_instruction(*this, i) || number_instruction(*this, i) ||
        other_instruction(*this, i))
        return;
    found(
        {"unsupported", "error", say("inline PTX `", i.text, "`: the emulator does not know this instruction"), place});
    abandon();
}
}  // namespace minillm_cuda

extern "C" void minillm_cuda_ptx(const char* text, void* operands, int count, const void* place) {
    using namespace minillm_cuda;
    static auto* programs = new std::map<const char*, std::vector<Instruction>>();
    auto program = programs->find(text);
    if (program == programs->end()) program = programs->emplace(text, read_ptx(text)).first;
    PtxRun run{static_cast<PtxOperand*>(operands), count, uintptr_t(place), {}};
    if (!current) return;
    for (const Instruction& i : program->second) run.step(i);
}
