// Registers and launch bounds: what a kernel says of itself (`__launch_bounds__`, `__maxnreg__`, setmaxnreg), and whether
// a launch keeps to it. A multiprocessor has 65,536 registers, which a block takes for whole warps, 8 a thread at a time.
#include <algorithm>

#include "../host.h"
#include "memory.h"
#include "report.h"
#include "resources.h"

namespace minillm_cuda {
namespace {
constexpr int REGISTERS = 65536, MOST = 255, LEAST = 24;  // LEAST: that setmaxnreg can leave a thread

int up_to(int n, int unit) { return (n + unit - 1) / unit * unit; }
std::string called(const char* what, int line) { return say("`", what, "` in line ", line); }

// The launch does not take place: an error of the host's, told where it launches.
[[noreturn]] void refuse(cudaError_t error, const std::string& why) {
    Thread* me = current;
    current = nullptr;
    found({"launch", "error", say(launched->name, " does not run: ", why), 0, 0, launched->file, launched->line});
    current = me;
    launched->refused = error;
    abandon();
}

void complain(const std::string& why, uintptr_t place) {
    if (!known("registers", place, 0)) found({"registers", "error", why, place});
}

// Do the registers suffice that the warps have asked for? Those that have not yet keep `rest`.
void check_sum(const Block& block, int rest, uintptr_t place) {
    int sum = 0;
    for (const Warp& warp : block.warps) sum += 32 * (warp.registers ? warp.registers : rest);
    const int has = 32 * int(block.warps.size()) * launched->registers;
    if (sum > has)
        complain(say("after setmaxnreg the warps of a block hold ", sum, " registers or more; it was launched with ",
                     has, ", ", launched->registers, " a thread: a warp would wait for ever"),
                 place);
}
}  // namespace

void set_registers(int n, bool more, uintptr_t place) {
    Warp& warp = *current->warp;
    if (!launched->registers)
        return complain("setmaxnreg is ignored by ptxas without __launch_bounds__(threads, blocks) or __maxnreg__",
                        place);
    const int now = warp.registers ? warp.registers : launched->registers;
    if (warp.registers_at != place && (n % 8 || n < LEAST || n > 256 || (more ? n < now : n > now)))
        complain(say("setmaxnreg.", more ? "inc" : "dec", " from ", now, " to ", n,
                     ": from 24 to 256, by eights, and not the other way"),
                 place);
    warp.registers = n;
    warp.registers_at = place;
    check_sum(*current->block, LEAST, place);
}

void check_registers(const Block& block) {
    for (const Warp& warp : block.warps)
        if (warp.registers_at) return check_sum(block, launched->registers, warp.registers_at);
}
}  // namespace minillm_cuda

using namespace minillm_cuda;

extern "C" {
void minillm_cuda_launch_bounds(const char* text, int line, long most, long blocks) {
    if (!current) return;
    const int threads = launched->threads_per_block, bound = up_to(int(most), 32) * std::max(1, int(blocks));
    if (threads > most)
        refuse(cudaErrorInvalidValue, say(called(text, line), " allows ", most, " threads a block: got ", threads));
    if (blocks) launched->registers = std::min(MOST, REGISTERS / bound) / 8 * 8;
}
void minillm_cuda_maxnreg(const char* text, int line, long registers) {
    if (!current) return;
    const int threads = up_to(launched->threads_per_block, 32), each = up_to(int(registers), 8);
    if (threads * each > REGISTERS)
        refuse(cudaErrorLaunchOutOfResources,
               say(called(text, line), " gives ", threads, " threads ", each, " registers each, ", threads * each,
                   " in all: a block has ", REGISTERS));
    launched->registers = each;
}
}
