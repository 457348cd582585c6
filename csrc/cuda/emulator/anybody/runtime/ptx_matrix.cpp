// Inline PTX for tensor cores: ldmatrix and mma. Layouts: PTX ISA, "Matrix fragments"; g = lane / 4, t = lane % 4 there.
#include <cstring>

#include "../cuda_bf16.h"
#include "../cuda_fp16.h"
#include "../mma.h"
#include "ptx.h"
#include "report.h"

namespace minillm_cuda {
namespace {
// 1, 2 or 4 matrices of 8x8 16-bit numbers; lane i points at row i % 8 of matrix i / 8.
void load_matrix(PtxRun& run, const Instruction& i) {
    const auto& out = i.operands[0].parts;
    const bool transposed = i.has("trans");
    const int lane = current->lane, g = lane / 4, t = lane % 4;
    uint64_t row[2] = {};
    if (lane < 8 * int(out.size())) {
        const uintptr_t address = run.address(i.operands[1], true);
        touch(address, 16, READ, run.place);
        std::memcpy(row, reinterpret_cast<void*>(address), 16);
    }
    const auto lanes = gather(Kind::matrix, ~0u, row, 2, run.place);
    for (size_t m = 0; m < out.size(); m++) {
        uint32_t pair = 0;
        for (int half = 0; half < 2; half++) {
            const int from = transposed ? 2 * t + half : g, column = transposed ? g : 2 * t + half;
            pair |= uint32_t(lanes->values[8 * m + from][column / 4] >> 16 * (column % 4) & 0xffff) << 16 * half;
        }
        run.set(out[m], pair);
    }
}

enum class Type { f16, bf16, tf32 };
float number(uint32_t word, int half, Type type) {
    if (type == Type::tf32) return nvcuda::wmma::own::tf32(as<float>(word));
    const auto bits = static_cast<unsigned short>(word >> 16 * half);
    return type == Type::f16 ? HalfFormat::widen(bits) : Bfloat16Format::widen(bits);
}

// c (16x8) = a (16xk) @ b (kx8) + c. `per` numbers of a row lie in one 32-bit register; a register covers 4 * per columns.
void multiply(PtxRun& run, const Instruction& i, int k, Type type) {
    const int per = type == Type::tf32 ? 1 : 2;
    const auto &out = i.operands[0].parts, &a = i.operands[1].parts, &c = i.operands[3].parts;
    const auto b = i.operands[2].kind == Operand::VECTOR ? i.operands[2].parts : std::vector<Operand>{i.operands[2]};
    uint64_t words[6] = {};
    for (size_t r = 0; r < a.size(); r++) words[r] = run.get(a[r]);
    for (size_t r = 0; r < b.size(); r++) words[4 + r] = run.get(b[r]);
    const auto lanes = gather(Kind::matrix, ~0u, words, 6, run.place);
    const int lane = current->lane, g = lane / 4, t = lane % 4;
    const bool halves = out.size() == 2;  // the sums are pairs of f16
    float sums[4];
    for (int e = 0; e < 4; e++) {
        const int lower = e / 2, column = 2 * t + e % 2;
        float sum = halves ? number(uint32_t(run.get(c[lower])), e % 2, Type::f16) : as<float>(run.get(c[e]));
        for (int j = 0; j < k; j++) {
            const int reg = j / (4 * per), within = j / per % 4, half = j % per;
            sum += number(uint32_t(lanes->values[4 * g + within][2 * reg + lower]), half, type) *
                   number(uint32_t(lanes->values[4 * column + within][4 + reg]), half, type);
        }
        sums[e] = sum;
    }
    for (size_t e = 0; e < out.size(); e++)
        run.set(out[e], halves ? HalfFormat::narrow(sums[2 * e]) | uint64_t(HalfFormat::narrow(sums[2 * e + 1])) << 16
                               : bits_of(sums[e]));
}
}  // namespace

bool matrix_instruction(PtxRun& run, const Instruction& i) {
    if (i.words[0] == "ldmatrix" && i.operands.size() == 2 && i.has("m8n8")) {
        load_matrix(run, i);
        return true;
    }
    if (i.words[0] != "mma" || i.operands.size() != 4) return false;
    const bool narrow = i.has("f16") && !i.has("bf16") && !i.has("tf32");
    if (i.has("tf32") && (i.has("m16n8k8") || i.has("m16n8k4"))) multiply(run, i, i.has("m16n8k8") ? 8 : 4, Type::tf32);
    else if ((narrow || i.has("bf16")) && (i.has("m16n8k16") || i.has("m16n8k8")))
        multiply(run, i, i.has("m16n8k16") ? 16 : 8, narrow ? Type::f16 : Type::bf16);
    else return false;
    return true;
}
}  // namespace minillm_cuda
