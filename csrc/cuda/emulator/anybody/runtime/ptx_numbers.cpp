// Inline PTX that computes: arithmetic, bits, comparisons, conversions.
#include <cmath>

#include "../cuda_bf16.h"
#include "../cuda_fp16.h"
#include "../mma.h"
#include "ptx.h"

namespace minillm_cuda {
namespace {
template <class T>
bool arithmetic(const std::string& op, const Instruction& i, const uint64_t* in, uint64_t* out) {
    const T a = as<T>(in[0]), b = as<T>(in[1]), c = as<T>(in[2]);
    if (op == "add") *out = bits_of(T(a + b));
    else if (op == "sub") *out = bits_of(T(a - b));
    else if (op == "mul" && !i.has("hi") && !i.has("wide")) *out = bits_of(T(a * b));
    else if ((op == "mad" || op == "fma") && !i.has("hi") && !i.has("wide"))
        *out = bits_of(std::is_integral<T>::value ? T(a * b + c) : T(std::fma(double(a), double(b), double(c))));
    else if (op == "div") *out = bits_of(T(a / b));
    else if (op == "min") *out = bits_of(b < a ? b : a);
    else if (op == "max") *out = bits_of(a < b ? b : a);
    else if (op == "neg") *out = bits_of(T(T(0) - a));
    else if (op == "abs") *out = bits_of(a < T(0) ? T(T(0) - a) : a);
    else if (op == "setp") {
        *out = i.has("eq")                  ? a == b
               : i.has("ne")                ? a != b
               : i.has("lt") || i.has("lo") ? a < b
               : i.has("le") || i.has("ls") ? a <= b
               : i.has("gt") || i.has("hi") ? a > b
                                            : a >= b;
    } else return false;
    return true;
}

bool transcendental(const std::string& op, const uint64_t* in, uint64_t* out) {
    const float x = as<float>(in[0]);
    if (op == "ex2") *out = bits_of(exp2f(x));
    else if (op == "lg2") *out = bits_of(log2f(x));
    else if (op == "rcp") *out = bits_of(1 / x);
    else if (op == "sqrt") *out = bits_of(sqrtf(x));
    else if (op == "rsqrt") *out = bits_of(1 / sqrtf(x));
    else if (op == "sin") *out = bits_of(sinf(x));
    else if (op == "cos") *out = bits_of(cosf(x));
    else if (op == "tanh") *out = bits_of(tanhf(x));
    else return false;
    return true;
}

bool bits(const std::string& op, const Instruction& i, const uint64_t* in, uint64_t* out) {
    const uint32_t a = uint32_t(in[0]), b = uint32_t(in[1]), c = uint32_t(in[2]);
    const bool wide = i.type().find("64") != std::string::npos;
    const uint64_t all = wide ? ~0ull : 0xffffffffull;
    if (op == "and") *out = in[0] & in[1];
    else if (op == "or") *out = in[0] | in[1];
    else if (op == "xor") *out = (in[0] ^ in[1]) & all;
    else if (op == "not") *out = i.type() == "pred" ? !in[0] : ~in[0] & all;
    else if (op == "shl") *out = in[1] >= (wide ? 64 : 32) ? 0 : in[0] << in[1] & all;
    else if (op == "shr" && i.type()[0] == 's')
        *out = wide ? uint64_t(int64_t(in[0]) >> (in[1] > 63 ? 63 : in[1])) : uint32_t(int32_t(a) >> (b > 31 ? 31 : b));
    else if (op == "shr") *out = in[1] >= (wide ? 64 : 32) ? 0 : (in[0] & all) >> in[1];
    else if (op == "popc") *out = uint64_t(__builtin_popcountll(in[0] & all));
    else if (op == "clz") *out = wide ? uint64_t(__clzll((long long)(in[0]))) : uint64_t(__clz(int(a)));
    else if (op == "brev") *out = wide ? __brevll(in[0]) : __brev(a);
    else if (op == "prmt") *out = __byte_perm(a, b, c);
    else if (op == "bfe" && i.type() == "u32") *out = c ? a >> (b & 31) & (c >= 32 ? ~0u : (1u << c) - 1) : 0;
    else if (op == "lop3") {
        uint32_t r = 0;
        for (int bit = 0; bit < 32; bit++)
            r |= uint32_t(in[3] >> ((a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1)) & 1) << bit;
        *out = r;
    } else if (op == "mul" && i.has("hi"))
        *out = i.type()[0] == 's' ? uint32_t(__mulhi(int(a), int(b))) : __umulhi(a, b);
    else if (op == "mul" && i.has("wide"))
        *out = i.type()[0] == 's' ? uint64_t(int64_t(int32_t(a)) * int32_t(b)) : uint64_t(a) * b;
    else if (op == "mad" && i.has("wide"))
        *out = (i.type()[0] == 's' ? uint64_t(int64_t(int32_t(a)) * int32_t(b)) : uint64_t(a) * b) + in[2];
    else return false;
    return true;
}

double widened(const std::string& type, uint64_t x) {
    if (type == "f16") return HalfFormat::widen(static_cast<unsigned short>(x));
    if (type == "bf16") return Bfloat16Format::widen(static_cast<unsigned short>(x));
    if (type == "f32") return as<float>(x);
    if (type == "f64") return as<double>(x);
    if (type == "s32") return int32_t(x);
    if (type == "s64") return double(int64_t(x));
    if (type == "u32") return uint32_t(x);
    if (type == "s16") return int16_t(x);
    if (type == "s8") return int8_t(x);
    return double(type == "u16" ? x & 0xffff : type == "u8" ? x & 0xff : x);
}
uint64_t narrowed(const std::string& type, double x, const Instruction& i) {
    if (type == "f16") return HalfFormat::narrow(float(x));
    if (type == "bf16") return Bfloat16Format::narrow(float(x));
    if (type == "f32") return bits_of(i.has("sat") ? float(fmin(fmax(x, 0.0), 1.0)) : float(x));
    if (type == "tf32") return bits_of(nvcuda::wmma::own::tf32(float(x)));
    if (type == "f64") return bits_of(x);
    const double whole = i.has("rni") ? nearbyint(x) : i.has("rmi") ? floor(x) : i.has("rpi") ? ceil(x) : trunc(x);
    return type[0] == 's' ? uint64_t(int64_t(whole)) : uint64_t(whole < 0 ? 0 : whole);
}
// cvt.ROUNDING.TO.FROM; of two sources the first is the upper half.
bool convert(const Instruction& i, const uint64_t* in, uint64_t* out) {
    const std::string &from = i.type(), &to = i.words[i.words.size() - 2];
    if (to == "f16x2" || to == "bf16x2") {
        const std::string one = to.substr(0, to.size() - 2);
        *out = narrowed(one, as<float>(in[0]), i) << 16 | narrowed(one, as<float>(in[1]), i);
    } else if (from[0] != 'f' && from[0] != 'b' && to[0] != 'f' && to[0] != 'b') {      // between integers
        *out = from == "s32" ? uint64_t(int64_t(int32_t(in[0]))) : from == "u32" ? uint32_t(in[0]) : in[0];
    } else {
        *out = narrowed(to, widened(from, in[0]), i);
    }
    return true;
}
}  // namespace

bool number_instruction(PtxRun& run, const Instruction& i) {
    const std::string& op = i.words[0];
    if (i.operands.empty()) return false;
    if (op == "mov" && i.operands[0].kind == Operand::VECTOR) {                         // a register taken apart
        const uint64_t x = run.get(i.operands[1]);
        const size_t n = i.operands[0].parts.size(), width = i.type() == "b64" ? 64 / n : 32 / n;
        for (size_t p = 0; p < n; p++) run.set(i.operands[0].parts[p], x >> width * p & ((1ull << width) - 1));
        return true;
    }
    if (op == "mov" && i.operands[1].kind == Operand::VECTOR) {
        const auto& parts = i.operands[1].parts;
        const size_t width = (i.type() == "b64" ? 64 : 32) / parts.size();
        uint64_t x = 0;
        for (size_t p = 0; p < parts.size(); p++) x |= (run.get(parts[p]) & ((1ull << width) - 1)) << width * p;
        run.set(i.operands[0], x);
        return true;
    }
    static const char* const mine[] = {"mov",  "cvta",  "selp", "setp", "cvt",  "add",  "sub", "mul", "mad",
                                       "fma",  "div",   "min",  "max",  "neg",  "abs",  "ex2", "lg2", "rcp",
                                       "sqrt", "rsqrt", "sin",  "cos",  "tanh", "and",  "or",  "xor", "not",
                                       "shl",  "shr",   "popc", "clz",  "brev", "prmt", "bfe", "lop3"};
    bool known_op = false;
    for (const char* name : mine) known_op |= op == name;
    if (!known_op) return false;
    uint64_t in[4] = {}, out = 0;
    for (size_t n = 1; n < i.operands.size() && n < 5; n++) in[n - 1] = run.get(i.operands[n]);
    const std::string& t = i.type();
    bool done = true;
    if (op == "mov") out = in[0];
    else if (op == "cvta")
        out = !i.has("shared") ? in[0]
              : i.has("to")    ? (in[0] > 0xffffffffu ? shared_offset(in[0]) : in[0])
                               : shared_address(in[0]);
    else if (op == "selp") out = in[2] ? in[0] : in[1];
    else if (op == "cvt") done = convert(i, in, &out);
    else if (transcendental(op, in, &out)) {
    } else if (bits(op, i, in, &out)) {
    } else if (t == "f16x2" || t == "bf16x2" || t == "f16" || t == "bf16") {
        return false;
    } else {
        done = t == "f32"                 ? arithmetic<float>(op, i, in, &out)
               : t == "f64"               ? arithmetic<double>(op, i, in, &out)
               : t == "s32" || t == "b32" ? arithmetic<int32_t>(op, i, in, &out)
               : t == "s64" || t == "b64" ? arithmetic<int64_t>(op, i, in, &out)
               : t == "u64"               ? arithmetic<uint64_t>(op, i, in, &out)
                                          : arithmetic<uint32_t>(op, i, in, &out);
    }
    if (done) run.set(i.operands[0], out);
    return done;
}
}  // namespace minillm_cuda
