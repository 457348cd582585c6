"""The compiled kernels: one module per instruction set, of which `load` picks the best that this CPU can run.

The environment variable MINILLM_CPU (scalar, avx2, avx512 or amx) forces one; ImportError says why if it cannot be used.
MINILLM_CPU=none leaves all of them out, and NumPy does everything.
A module that is there but broken raises its own ImportError: it is never passed over in silence.
"""
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

EXTENSIONS = f"{__package__.partition('.')[0]}._cpp"          # the package that the build puts them into

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
    if find_spec(f"{EXTENSIONS}.{isa}") is None:
        return "not built"
    return f"this CPU lacks {', '.join(sorted(missing))}" if missing else ""


def load():
    """The module to use: MINILLM_CPU's, or the best usable one; None for NumPy alone."""
    states, forced = status(), os.environ.get("MINILLM_CPU")
    if forced == "none":
        return None
    if forced and forced not in NEEDS:
        raise ImportError(f"MINILLM_CPU must be one of {', '.join(NEEDS)}, none: got {forced!r}")
    if forced and states[forced]:
        raise ImportError(f"MINILLM_CPU={forced} cannot be used: {states[forced]}")
    usable = [isa for isa, why_not in states.items() if not why_not]
    # OpenMP's threads wait for each other by spinning. On a machine with other work to do that wastes whole time slices
    # (measured: 10 times slower), so let them spin for microseconds only and then sleep. Read when the library loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return import_module(f"{EXTENSIONS}.{forced or usable[0]}") if usable else None
