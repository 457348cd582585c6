"""Planted bugs in the kernels of tests/cuda/zoo: each a change of one section of a file, and what must be said of it.

(file, words of the section's title, text there, its replacement, what is reported, words of the line that is named; ""
for values, where no line is known). All variants of a file are compiled at once: `with_bugs` appends each section once
more with its change and its functions renamed.
"""
import re
from pathlib import Path
from typing import NamedTuple

from minillm.kernels.own.cuda.shared import function_depths
from minillm.kernels.own.cuda.tokens import before, partner, tokens_of

ZOO = Path(__file__).parent / "cuda" / "zoo"


class Bug(NamedTuple):
    """One planted bug."""

    file: str
    section: str
    old: str
    new: str
    kind: str                   # a finding's name: of the emulator, or "values"
    line: str                   # words of the line that must be named


BARRIER = "__syncthreads();"
BUGS = [Bug(*bug) for bug in [
    # elements: bounds, alignment, indices, memory of the wrong side
    ("elementwise", "a thread an element", "if (i < N) {", "if (i <= N) {", "out of bounds", "float v = x[i]"),
    ("elementwise", "a thread an element", "if (i < N) {", "{", "out of bounds", "float v = x[i]"),
    ("elementwise", "a thread an element", "block_size), block_size>>>", "block_size), 8 * block_size>>>", "launch",
     "gelu_naive<<<"),
    ("elementwise", "a thread an element", "    cudaCheck(cudaGetLastError());\n", "", "unchecked launch",
     "gelu_naive<<<"),
    ("elementwise", "grid of fixed size", "blockIdx.x * blockDim.x + threadIdx.x; i < n", "blockIdx.x; i < n",
     "values", ""),
    ("elementwise", "four at a time", "threadIdx.x) * 4", "threadIdx.x) * 3", "misaligned", "float4 v = "),
    ("elementwise", "four at a time", "if (i + 3 < n)", "if (i <= n)", "out of bounds", "float4 v = "),
    ("elementwise", "in place of what is there", "if (i >= N) return;", "", "out of bounds", "float x = inp[i]"),
    ("elementwise", "host pointers", "64>>>(d_out, d_x, N)", "64>>>(d_out, x, N)", "host memory", "float v = x[i]"),
    ("elementwise", "host pointers", "    gelu_naive<<<", "    cudaFree(d_x);\n    gelu_naive<<<", "freed memory",
     "float v = x[i]"),
    ("elementwise", "streaming loads", "if (i < N) __stcs", "if (i <= N) __stcs", "out of bounds", "__stcs"),
    ("elementwise", "two-dimensional blocks", "* blockDim.x + threadIdx.x", "+ threadIdx.x", "race", "dinp1[i] +="),
    ("elementwise", "a functor", "if (base + k < N) out", "out", "out of bounds", "out[base + k] = f"),
    ("elementwise", "constant memory", "cudaCheck(cudaMemcpyToSymbol(bound, &cap, sizeof(float)));", "", "values", ""),
    ("elementwise", "on a stream", "if (i < N) {", "{", "out of bounds", "fmaxf(x[i]"),
    ("elementwise", "Philox", "e < 8 && block * 8 + e < N", "e < 8", "out of bounds", "out[block * 8 + e] = "),
    ("elementwise", "Philox", "    const uint32_t least", "    int state = (block + 2) * 1664525 * 1013904223;\n"
     "    c[3] += state;\n    const uint32_t least", "overflow", "int state = "),
    ("elementwise", "AdamW", "if (i >= num_parameters) return;", "if (i > num_parameters) return;", "out of bounds",
     "float g = grad[i]"),
    # rows: loops, trees in shared memory, barriers
    ("norms", "a thread a row", "i < C; i++) m += x[i]", "i <= C; i++) m += x[i]", "out of bounds", "m += x[i]"),
    ("norms", "three kernels", "shared[tid + stride];\n        __syncthreads();", "shared[tid + stride];", "race",
     "shared[tid] += shared[tid + stride]"),
    ("norms", "three kernels", "shared[tid] = sum;\n    __syncthreads();", "shared[tid] = sum;", "uninitialised",
     "shared[tid] += shared[tid + stride]"),
    ("norms", "three kernels", "block_size * sizeof(float)>>>", "block_size>>>", "out of bounds", "shared[tid] = sum"),
    ("norms", "three kernels", "if (tid < stride)", "if (tid <= stride)", "out of bounds", "shared[tid] +="),
    ("norms", "a warp a row, by cooperative", "if (idx >= N) return;", "", "out of bounds", "sum += x[i]"),
    ("norms", "stay in shared memory", "bytes = C * sizeof(float)", "bytes = (C - 1) * sizeof(float)", "out of bounds",
     "row[i] = x[i]"),
    ("norms", "by atomics", "atomicAdd(&dbias[i], dout[at + i]);", "dbias[i] += dout[at + i];", "race", "dbias[i] +="),
    ("norms", "without atomics", "    __syncthreads();\n", "", "uninitialised", "dw += sums[0]"),
    ("norms", "without atomics", "    __syncthreads();\n    if (threadIdx.y == 0 && c < C) {",
     "    if (threadIdx.y == 0 && c < C) {\n        __syncthreads();", "divergence", BARRIER),
    ("norms", "in one pass", "if (row >= N) return;", "", "out of bounds", "float both = "),
    ("norms", "a partial last warp", "partial[threadIdx.x] = sum;\n    __syncthreads();", "partial[threadIdx.x] = sum;",
     "uninitialised", "all += partial[i]"),
    ("norms", "a partial last warp", "i < 48; i++", "i <= 48; i++", "out of bounds", "all += partial[i]"),
    ("norms", "a partial last warp", "    }\n    __syncthreads();", "    }", "race", "row[c] * total"),
    # losses: masks, what nobody has stored, memory given back
    ("losses", "a thread a row, three", "if (i < N) {", "{", "out of bounds", "row[j] > maxval"),
    ("losses", "a warp a row, online", "0xffffffffu, mine.sum", "0x0000ffffu, mine.sum", "divergence",
     "mine.sum, offset"),
    ("losses", "a warp a row, online", "int offset = 16", "int offset = 8", "values", ""),
    ("losses", "by shared memory and shuffles", "<<<B * T, 96>>>", "<<<B * T, 80>>>", "undefined lane", "common.cuh"),
    ("losses", "dot product first", "j < V; j += blockDim.x) dot", "j <= V; j += blockDim.x) dot", "out of bounds",
     "dot +="),
    ("losses", "cross-entropy: a block", "    if (threadIdx.x == 0) sum = 0.0f;\n", "", "uninitialised",
     "atomicAdd(&sum"),
    ("losses", "cross-entropy: a block", "atomicAdd(&sum, mine);", "sum += mine;", "race", "sum += mine"),
    ("losses", "cross-entropy: a block", "    __syncthreads();\n    if (threadIdx.x == 0) {",
     "    if (threadIdx.x == 0) {",
     "race", "atomicAdd(&sum"),
    ("losses", "cross-entropy: a block", "{\n        if (threadIdx.x < half) tree",
     "{\n        if (threadIdx.x >= half) break;\n        tree", "divergence", BARRIER),
    ("losses", "two-dimensional grid", "if (v >= V || n >= N) return;", "if (v >= V) return;", "out of bounds",
     "const float p"),
    ("losses", "then one block", "    add_partials<<<", "    cudaFree(partial);\n    add_partials<<<", "freed memory",
     "sum += partial[i]"),
    ("losses", "then one block", "i < n; i++) sum", "i <= n; i++) sum", "out of bounds", "sum += partial[i]"),
    ("losses", "then one block", "tree[threadIdx.x + s];\n        __syncthreads();", "tree[threadIdx.x + s];", "race",
     "+= tree["),
    ("losses", "atomics on a double", "    cudaCheck(cudaMemset(out, 0, sizeof(double)));\n", "", "values", ""),
    # tables
    ("tables", "a thread four numbers", "wpe[t * C4 + c4]", "wpe[bt * C4 + c4]", "out of bounds", "make_float4(a.x"),
    ("tables", "a thread four numbers", "((float4*)out, inp", "((float4*)(out + 1), inp", "misaligned",
     "out[bt * C4 + c4] ="),
    ("tables", "atomics on both tables", "atomicAdd(dwte + ix * C + c, dout[idx]);", "dwte[ix * C + c] += dout[idx];",
     "race",
     "dwte[ix * C + c] +="),
    ("tables", "a block a token", "<<<rows, 64>>>", "<<<rows + 1, 64>>>", "out of bounds", "from = "),
    ("tables", "in a fixed order", "tokens[first + threadIdx.x];\n        __syncthreads();",
     "tokens[first + threadIdx.x];",
     "race", "ids[i] == v"),
    ("tables", "in a fixed order", "if (first + threadIdx.x < BT) ids", "ids", "out of bounds",
     "ids[threadIdx.x] = tokens"),
    ("tables", "rotary positions", "if (pair >= C / 2) return;", "", "out of bounds", "const float a = "),
    # matrix products
    ("matmuls", "a thread an element", "bt < BT && oc < OC", "oc < OC", "out of bounds", "val += inp"),
    ("matmuls", "16 x 16 in shared", ": 0.0f;\n        __syncthreads();", ": 0.0f;", "race", "sum += a["),
    ("matmuls", "16 x 16 in shared", "[threadIdx.x];\n        __syncthreads();", "[threadIdx.x];", "race",
     "a[threadIdx.y]["),
    ("matmuls", "16 x 16 in shared", "row < BT && k + threadIdx.x < C ? inp[row * C + k + threadIdx.x] : 0.0f",
     "inp[row * C + k + threadIdx.x]", "out of bounds", "a[threadIdx.y][threadIdx.x] = "),
    ("matmuls", "32 x 32 by 64", "As[BK][BM + 4]", "As[BK][BM]", "bank conflicts", "As[k][r] = "),
    ("matmuls", "32 x 32 by 64", "++j) acc[i][j] += regM[i] * regN[j];\n        }\n        __syncthreads();",
     "++j) acc[i][j] += regM[i] * regN[j];\n        }", "race", "["),
    ("matmuls", "a warp an output", "if (C % 4 == 0)", "if (C > 4)", "misaligned", "const float4 a = "),
    ("matmuls", "transposed views", "C, OC, BT, C, 1, OC, 1, 1.0f", "C, OC, BT, C, 1, OC, 1, 0.0f", "values", ""),
    ("matmuls", "split over blocks", "atomicAdd(&out[bt * V + v], sum);", "out[bt * V + v] += sum;", "race", "+= sum"),
    ("matmuls", "split over blocks", "(size_t)B * T * V * sizeof(float)", "(size_t)B * T * V", "values", ""),
    # attention
    ("attentions", "scores, softmax", "if (idx < total_threads) {", "{", "out of bounds", "preatt[idx] = "),
    ("attentions", "flash style", "            m = new_m;\n        }\n        __syncthreads();",
     "            m = new_m;\n        }", "race", "["),
    ("attentions", "flash style", "key < T ? base[(size_t)key * 3 * C + C + d] : 0.0f",
     "base[(size_t)key * 3 * C + C + d]", "out of bounds", "Kj[threadIdx.y][d] = "),
    ("attentions", "decoding", "(warps * HS + 2 * warps)", "(warps * HS + warps)", "out of bounds", "ls[warp] = l"),
    ("attentions", "decoding", "ls[warp] = l;\n    __syncthreads();", "ls[warp] = l;", "race", "fmaxf(top, ms[w])"),
    # narrow types, votes, grids
    ("narrow", "pairs of halves", "if (i + 1 < N)", "if (i < N)", "out of bounds", "__half2 x = "),
    ("narrow", "as bf16", "C * sizeof(__nv_bfloat16)", "C", "out of bounds", "kept[c] = "),
    ("narrow", "tensor cores", "row0 + r < BT && k0 + k < C ?", "k0 + k < C ?", "out of bounds", "a[i] = "),
    ("narrow", "tensor cores", "load_matrix_sync(fa, a, 16)", "load_matrix_sync(fa, a, 8)", "values", ""),
    ("warps", "counted by ballots", "&& i < N) out[i]", ") out[i]", "out of bounds", "out[i] = "),
    ("warps", "tiles of eight", "if (row >= N) return;", "", "out of bounds", "top = fmaxf(top, inp"),
    ("warps", "the last one adds up", "tree[threadIdx.x] = sum;\n    __syncthreads();", "tree[threadIdx.x] = sum;",
     "uninitialised",
     "sum += tree"),
    ("warps", "a cooperative grid", "    grid.sync();\n", "", "race", "rstd[i / C]"),
    ("warps", "find each other", "mine ? dout[i * C + c] : 0.0f", "dout[i * C + c]", "out of bounds",
     "const float value"),
    ("warps", "fast intrinsics", "dup[i] = d * g * s;", "dup[i + 1] = d * g * s;", "out of bounds", "dup[i + 1]"),
]]


def sections(text: str) -> list[tuple[str, str]]:
    """(title, text) of the sections that begin with a line `// ---- title ----`."""
    parts = re.split(r"(?m)^(?=// ---- )", text)[1:]
    return [(part.partition("\n")[0], part) for part in parts]


def defined(text: str) -> set[str]:
    """The names that a section defines: functions, structs, variables of the device."""
    tokens, found = tokens_of(text), set(re.findall(r"struct (?:__align__\(\d+\) )?(\w+) \{", text))
    depths = function_depths(tokens)
    for at, token in enumerate(tokens):
        close = before(tokens, at)
        if token.text == "{" and depths[at] == 1 and close > 0 and tokens[close].text == ")":
            found.add(tokens[before(tokens, partner(tokens, close))].text)
    return (found | set(re.findall(r"(?m)^__(?:constant|device)__ \w+ (\w+)(?:\[| =|;)", text))) - {"operator"}


def with_bugs(file: str, bugs: list[Bug]) -> tuple[str, dict[int, list[int]]]:
    """The file's text with a variant of a section behind it for each bug, whose functions end in _bugN; and for each N
    the numbers of the lines that may be named."""
    text = (ZOO / f"{file}.cu").read_text()
    lines = {}
    for number, bug in enumerate(bugs):
        (part,) = (part for title, part in sections((ZOO / f"{file}.cu").read_text()) if bug.section in title)
        assert bug.old in part, f"{bug.file}: no {bug.old!r}"
        changed = part.replace(bug.old, bug.new, 1)
        for name in defined(part):
            changed = re.sub(rf"\b{name}\b(?!\s*:)", f"{name}_bug{number}", changed)
        first = text.count("\n") + 1
        text += changed
        words = bug.line
        for name in defined(part):
            words = re.sub(rf"\b{name}\b(?=<<<)", f"{name}_bug{number}", words)
        here = [first + i for i, line in enumerate(changed.splitlines()) if words in line]
        lines[number] = here or [i for i, line in enumerate(text.splitlines(), 1) if words in line]
        assert lines[number] or bug.line == "common.cuh", f"{bug.file}: no line with {bug.line!r}"
    return text, lines
