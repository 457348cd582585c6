"""The compiled kernels: one module per instruction set, of which `load` picks the best that this CPU can run.

The environment variable MINILLM_CPU (scalar, avx2, avx512 or amx) forces one; ImportError says why if it cannot be
used. MINILLM_CPU=none leaves all of them out, and NumPy does everything.
A module that is there but broken raises its own ImportError: it is never passed over in silence.
A process may fork after kernels ran (os.fork, multiprocessing's "fork"): parent and child go on, each with threads of
its own.
setup.py runs this file to know what suits a CPU, so it imports nothing of ours.
"""
import json
import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
EXTENSIONS = f"{__package__.partition('.')[0]}._cpp"          # the package that the build puts them into

NEEDS = {   # instruction set -> the CPU flags it needs, as Linux names them; the best comes first
    "amx": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma"},
    "scalar": set(),
}


def cpu_info(key: str) -> str:
    """What Linux says of the CPU under this key; "" where it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")


def cpu_flags() -> set[str]:
    """The CPU's features by Linux's names; empty where they cannot be read (then only `scalar` is safe)."""
    return set(cpu_info("flags").split())


def best() -> str:
    """The instruction set that suits this CPU, built or not."""
    return next(isa for isa, needs in NEEDS.items() if needs <= cpu_flags())


def status() -> dict[str, str]:
    """{instruction set: "" if it can be used here, else why not}, the best first."""
    flags = cpu_flags()
    return {isa: f"this CPU lacks {', '.join(sorted(needs - flags))}" if needs - flags else why_not(isa)
            for isa, needs in NEEDS.items()}


def why_not(name: str) -> str:
    """Why there is no minillm._cpp.NAME, and the command line that builds it; "" if there is."""
    if find_spec(f"{EXTENSIONS}.{name}"):
        return ""
    return f"not built: {failures().get(name) or how(name)}"


def how(name: str) -> str:
    """The command line that builds minillm._cpp.NAME, in a checkout."""
    install = f"pip install {'-e ' * (PACKAGE.parent / 'setup.py').exists()}."
    if name == "cuda":
        return f"MINILLM_CUDA=1 {install} (with nvcc installed)"
    return f"{install} (with g++ installed)" if name in (best(), "text", "data") else f"MINILLM_BUILD=all {install}"


def failures() -> dict[str, str]:
    """{module: what setup.py says of a compiler that failed}."""
    try:
        return json.loads((PACKAGE / "_cpp" / "failed.json").read_text())
    except OSError:
        return {}


def load() -> ModuleType | None:
    """The module to use: MINILLM_CPU's, or the best usable one; None for NumPy alone."""
    states, forced = status(), os.environ.get("MINILLM_CPU")
    if forced == "none":
        return None
    if forced and forced not in NEEDS:
        raise ImportError(f"MINILLM_CPU must be one of {', '.join(NEEDS)}, none: got {forced!r}")
    if forced and states[forced]:
        raise ImportError(f"MINILLM_CPU={forced} cannot be used: {states[forced]}")
    usable = [isa for isa, why_not in states.items() if not why_not]
    if not usable and failures():
        warnings.warn(f"everything runs on NumPy, which is slow, since the kernels are {why_not(best())}", stacklevel=2)
    # OpenMP's threads wait for each other by spinning. On a machine with other work to do that wastes whole time slices
    # (measured: 10 times slower), so let them spin for microseconds only and then sleep. Read when the library loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return import_module(f"{EXTENSIONS}.{forced or usable[0]}") if usable else None


def require() -> None:
    """Raise ImportError where NumPy would do everything, though nobody asked for that: for benchmarks."""
    if os.environ.get("MINILLM_CPU") != "none" and all(status().values()):
        raise ImportError(f"the kernels are {why_not(best())}; or set MINILLM_CPU=none to measure NumPy alone")
