"""What the op table says to somebody who writes a kernel: each op's C functions and costs, and a file to begin with."""
import inspect
import textwrap
from typing import Any

import numpy as np

from ...kernels.own.binding import SIZES
from ...kernels.own.call import named_values, shape_of, sizes_of
from ...ops.spec import Signature
from ...ops.table import FILES, OPS, REFERENCE, Dims, functions
from .workload import canonical, gradients_of_outputs

GPT2 = Dims(B=4, T=256, C=768, NH=12, V=50257)
C_TYPES = {"int": "const int*", "uint64": "const uint64_t*", "double": "double*"}
INTEGERS = (*SIZES, "step", "n_decayed", "ignore_index", "interleaved", "window")
BYTES = {"real": 4, "int": 4, "uint64": 8, "double": 8}
LENGTHS = {"B*T": lambda d: d.B * d.T, "B*T*C": lambda d: d.B * d.T * d.C, "B*T*4C": lambda d: 4 * d.B * d.T * d.C,
           "B*T*V": lambda d: d.B * d.T * d.V, "12*C*C": lambda d: 12 * d.C * d.C}      # what N is, by op
BODY = "    // your code; nothing is written yet, so the check fails\n"


def listing(dims: Dims = GPT2) -> list[dict[str, Any]]:
    """Each function of each op: its C prototype, shapes, and FLOPs and bytes at these sizes."""
    return [{"op": name, "function": function, "c": prototype(function, signature),
             "shapes": {a.name: list(a.shape) for a in (*signature.results, *signature.inputs)},
             "dtypes": ["float32", "float64"], "flops": spec.flops(dims)[i], "bytes": moved(name, signature, dims),
             "constants": constants(name, signature)}
            for name, spec in OPS.items()
            for i, (function, signature) in enumerate(zip(functions(spec), spec.signatures()))]


def constants(op: str, signature: Signature) -> dict[str, float]:
    """The numbers that a kernel of the op is not given, such as eps, and what they are in every check."""
    sample = OPS[op].sample(np.random.default_rng(0), "float32", Dims())
    return {name: value for name, value in sample.items() if type(value) is float and name not in signature.scalars}


def moved(op: str, signature: Signature, dims: Dims) -> int:
    """Bytes that must move at least, in float32: each array once, those that are added to twice."""
    sizes = sizes_at(op, dims)
    return sum(BYTES[a.type] * int(np.prod(shape_of(a.shape, sizes))) * (1 + a.added)
               for a in (*signature.results, *signature.inputs))


def sizes_at(op: str, dims: Dims) -> dict[str, int]:
    """The letters of an op's signature at these sizes, without arrays of these sizes."""
    small = Dims()
    found = sizes_of(op, named_values(op, canonical(OPS[op].sample(np.random.default_rng(0), "float32", small))))
    same = dims.sampled() | {"HS": dims.C // dims.NH, "OC": 4 * dims.C, "S": dims.T, "R": found.get("R", 1),
                             "K": found.get("K", 1) * dims.C // found.get("C", 1)}
    if "N" in found:
        same["N"] = next(length(dims) for length in LENGTHS.values() if length(small) == found["N"])
    if found.get("T") == 1 and "S" in found:
        same["T"] = 1                                           # decoding: one new token
    return same


def prototype(function: str, signature: Signature, real: str = "float") -> str:
    """The C prototype: results, inputs, then numbers."""
    parts = [f"{real if a.type == 'real' else 'double'}* {a.name}" for a in signature.results]
    parts += [f"{C_TYPES.get(a.type, f'const {real}*')} {a.name}" for a in signature.inputs]
    parts += [f"{'int' if name in INTEGERS else real} {name}" for name in signature.scalars]
    return f"void {function}({', '.join(parts)})"


def new_file(op: str, direction: str | None, lang: str) -> str:
    """The text of a file to begin with; it compiles, and fails the check until its body is written."""
    names = functions(OPS[op])
    chosen = [i for i in range(len(names)) if direction in (None, ("forward", "backward")[i])]
    if not chosen:
        raise ValueError(f"--direction: op {op} has no {direction}")
    return python_file(op, chosen) if lang == "py" else (cuda_file if lang == "cu" else c_file)(op, chosen, lang)


def formulas(op: str) -> str:
    """The derivation of the op's file."""
    return inspect.cleandoc(FILES[op].__doc__ or "")


def comment(text: str) -> str:
    """Lines of //."""
    return "".join(f"// {line}".rstrip() + "\n" for line in text.splitlines())


def c_file(op: str, chosen: list[int], lang: str) -> str:
    text = comment(f"A kernel of your own for op {op}, compiled on the fly:\n\n    minillm kernel check my.{lang} --op "
                   f"{op}\n    minillm kernel bench my.{lang} --op {op}\n\nWhat it computes:\n\n{formulas(op)}")
    text += "#include <math.h>\n#include <stdint.h>\n"
    for i in chosen:
        signature, name = OPS[op].signatures()[i], functions(OPS[op])[i]
        text += "\n" + comment("\n".join(explained(op, signature)))
        text += f"{prototype(name, signature)} {{\n{BODY}}}\n"
    return text


CUDA = """A kernel of your own for op {op}, in CUDA:

    minillm kernel check my.cu --op {op}

It runs on an emulator on the CPU, which tells of races, missing barriers, memory out of bounds or uninitialised and
the like, with the line; where there is a GPU and nvcc, it is compiled and checked there, too.

The function is called with pointers to device memory; one that copies its arguments to the device itself, by
cudaMemcpy(d_x, x, ..., cudaMemcpyHostToDevice), with pointers to host memory. Its name and those of its arguments say
what they are; other names are told by a comment `minillm:` with `FUNCTION(y=out, inp=x, ...)` behind it. Comments also
say how to launch a kernel that has no host function, and which sizes it takes, each on a line of its own:

    `launch: my_kernel<<<(N + 255) / 256, 256>>>`          `sizes: C % 4 == 0, T % 16 == 0`

What it computes:

{formulas}"""


def cuda_file(op: str, chosen: list[int], _: str) -> str:
    """A kernel without a body for each function, and the host function that launches it."""
    text = comment(CUDA.format(op=op, function=functions(OPS[op])[chosen[0]], formulas=formulas(op)))
    text += "#include <cuda_runtime.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    for i in chosen:
        signature, name = OPS[op].signatures()[i], functions(OPS[op])[i]
        text += "\n" + comment("\n".join(explained(op, signature))) + launched(name, signature)
    return text


LAUNCH = """__global__ {kernel} {{
{body}}}

{host} {{
    const int threads = 256, blocks = {blocks};
{launch}
    cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {{
        fprintf(stderr, "{name}: %s\\n", cudaGetErrorString(error));
        exit(1);
    }}
}}
"""


def launched(name: str, signature: Signature) -> str:
    """A kernel without a body, and the host function that launches it."""
    given = [a.name for a in (*signature.results, *signature.inputs)] + list(signature.scalars)
    host = textwrap.fill(prototype(name, signature), 98, subsequent_indent=" " * 8)
    blocks = ("B * T" if {"B", "T"} <= set(given) else "(N + threads - 1) / threads" if "N" in given else
              "(C * OC + threads - 1) / threads")
    return LAUNCH.format(kernel=host.replace(name, f"{name}_kernel", 1), host=host, body=BODY, blocks=blocks, name=name,
                         launch=textwrap.fill(f"{name}_kernel<<<blocks, threads>>>({', '.join(given)});", 118,
                                              initial_indent=" " * 4, subsequent_indent=" " * 8))


def explained(op: str, signature: Signature) -> list[str]:
    """One line an array: its shape, and what is expected of it; and one a number that the kernel must know."""
    lines = [f"{a.name} ({', '.join(a.shape)}): {'add to it' if a.added else 'write all of it'}"
             for a in signature.results]
    lines += [f"{a.name} ({', '.join(a.shape)}){': ' + a.type if a.type != 'real' else ''}: read only"
              for a in signature.inputs]
    return lines + [f"{name} is {value:g}" for name, value in constants(op, signature).items()]


def python_file(op: str, chosen: list[int]) -> str:
    spec, names = OPS[op], functions(OPS[op])
    parameters = [p for p in inspect.signature(REFERENCE[names[0]]).parameters if p in spec.sample(
        np.random.default_rng(0), "float32", Dims())]
    text = (f'"""A kernel of your own for op {op}, in NumPy, Numba or anything that takes NumPy arrays.\n\n'
            f'    minillm kernel check my.py --op {op}\n\nWhat it computes:\n\n{formulas(op)}\n"""\n'.replace("\\",
                                                                                                              "\\\\"))
    for i in chosen:
        douts = list(gradients_of_outputs(op))
        takes = parameters if i == 0 else ["dout" if len(douts) < 2 else "douts", "cache"]
        gives = ", ".join(f"d{name}"
                          for name in spec.differentiable) if i else "out, cache" if spec.kind == "pair" else "out"
        text += (f"\n\ndef {names[i]}({', '.join(takes)}):\n    # return {gives}\n"
                 f'    raise NotImplementedError("your code")\n')
    return text
