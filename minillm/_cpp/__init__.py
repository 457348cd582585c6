"""The compiled kernels: one module per instruction set, of which this package shows the best that this CPU can run.

The environment variable MINILLM_CPU (scalar, avx2, avx512 or amx) forces one. Importing raises ModuleNotFoundError
when none was built, and ImportError when the one asked for by name was not built or cannot run here.
"""
import os
import platform
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

NEEDS = {   # instruction set -> the CPU flags it needs, as Linux names them; the best comes first
    "amx": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma"},
    "scalar": set(),
}


def cpu_flags():
    """The CPU's features by Linux's names; empty where they cannot be read (then only `scalar` is safe)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def status():
    """{instruction set: "" if it can be used here, else why not}, the best first."""
    flags = cpu_flags()
    return {isa: reason(isa, needs - flags) for isa, needs in NEEDS.items()}


def reason(isa, missing):
    if find_spec(f"{__name__}.{isa}") is None:
        return "not built"
    return f"this CPU lacks {', '.join(sorted(missing))}" if missing else ""


def choose():
    """The instruction set to use: MINILLM_CPU, or the best usable one."""
    states, forced = status(), os.environ.get("MINILLM_CPU")
    if forced and forced not in NEEDS:
        raise ImportError(f"MINILLM_CPU must be one of {', '.join(NEEDS)}: got {forced!r}")
    if forced and states[forced]:
        raise ImportError(f"MINILLM_CPU={forced} cannot be used: {states[forced]}")
    usable = [isa for isa, why_not in states.items() if not why_not]
    if not usable:
        raise ModuleNotFoundError(f"no kernels were built for this {platform.machine()} machine", name=__name__)
    return forced or usable[0]


isa = choose()
kernels = import_module(f"{__name__}.{isa}")
