"""Writes the stubs that editors and type checkers read for minillm.ops and the compiled kernels, from the op table.

    python tests/stubs.py        after adding an op or a variant; test_stubs.py says when they are out of date
"""
import inspect
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from minillm.ops.table import OPS, REFERENCE, Dims, functions  # noqa: E402

WRITTEN = "Written by `python tests/stubs.py` from the op table."
OPS_HEAD = f'"""The reference ops. {WRITTEN}"""\nimport numpy as np\n\nArray = np.ndarray\n'
KERNELS_HEAD = f'"""{{}}, called as the reference ops. {WRITTEN}"""\nfrom typing import Any\n\nfrom .. import ops\n\n'
OTHERS = "\n\ndef __getattr__(name: str) -> Any: ...          # what is no op: the decoder's step, threads, buffers\n"
SAME = '"""As scalar.pyi, compiled for another instruction set."""\nfrom .scalar import *\n'
OF_BACKWARD = {"dout": "Array", "douts": "tuple[Array, ...]", "cache": "tuple",
               "into": "tuple[Array | None, ...] | None"}


def ops_stub():
    """Every function of the table: its signature with types, and its docstring's first line."""
    return OPS_HEAD + "".join(function(name, sample_of(spec), returns) for spec in OPS.values()
                              for name, returns in zip(functions(spec), results(spec)))


def function(name, sample, returns):
    reference = REFERENCE[name]
    parameters = [parameter(p, sample) for p in inspect.signature(reference).parameters.values() if p.name != "ops"]
    return f'\n\ndef {name}({", ".join(parameters)}) -> {returns}:\n    """{reference.__doc__.splitlines()[0]}"""\n'


def parameter(p, sample):
    """`eps: float = 1e-05`; the type is that of the sample's value, or of the default."""
    kind = OF_BACKWARD.get(p.name) or type_of(sample.get(p.name, p.default))
    kind += " | None" * (p.default is None and "None" not in kind)
    return f"{p.name}: {kind}" + ("" if p.default is inspect.Parameter.empty else f" = {p.default!r}")


def type_of(value):
    return {np.ndarray: "Array", type(None): "Array | None"}.get(type(value), type(value).__name__)


def results(spec):
    """What the functions of an op return, found by calling them."""
    out = REFERENCE[functions(spec)[0]](**sample_of(spec))
    if spec.kind != "pair":
        return [{np.ndarray: "Array", type(None): "None"}.get(type(out), "float")]
    forward = "tuple[Array, ...]" if isinstance(out[0], tuple) else "Array"
    return [f"tuple[{forward}, tuple]", "Array" if len(spec.differentiable) == 1 else "tuple[Array, ...]"]


def sample_of(spec):
    return spec.sample(np.random.default_rng(0), "float64", Dims())


def kernels_stub(title, backend):
    """Every variant of a backend is called as its reference."""
    names = [(name, f"{name}_{variant}".rstrip("_")) for spec in OPS.values() for name in functions(spec)
             for found, _, variant in (kernel.partition("/") for kernel in spec.kernels) if found == backend]
    return KERNELS_HEAD.format(title) + "".join(f"{ours} = ops.{name}\n" for name, ours in sorted(names)) + OTHERS


def stubs():
    """{path: text}."""
    cpp = ROOT / "minillm" / "_cpp"
    return {ROOT / "minillm" / "ops" / "__init__.pyi": ops_stub(),
            cpp / "scalar.pyi": kernels_stub("The kernels of one instruction set", "cpu"),
            **{cpp / f"{isa}.pyi": SAME for isa in ("avx2", "avx512", "amx")},
            cpp / "cuda.pyi": kernels_stub("The CUDA kernels", "cuda"),
            cpp / "cudasim.pyi": kernels_stub("The CUDA kernels on the emulator", "cudasim")}


if __name__ == "__main__":
    for path, text in stubs().items():
        path.write_text(text, encoding="utf-8")
