"""What this installation is: versions, the CPU, which kernels are built, which are not, and why."""
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from .._cpp import BORROWED
from ..version import __version__
from . import load as kernels
from . import select as registry
from .device import missing

FEATURES = sorted(set().union(*kernels.NEEDS.values()))       # of the CPU, those that kernels are built for
OTHER = {"text": "tokenizer", "data": "deduplication"}      # compiled modules beside the kernels; Python does without
LIMITS = {"text": "; patterns that are not built in are cut by `regex`, in Python, which takes several times as long"}
OPTIONAL = {"matplotlib": "loss.png", "cffi": "the kernel playground", "torch": "oracle tests, benchmark columns",
            "transformers": "oracle tests", "tiktoken": "oracle tests"}


def installation() -> dict[str, Any]:
    """Versions, the CPU, kernels and ops as a dict, for --json."""
    return {"minillm": __version__, "python": platform.python_version(), "numpy": np.__version__, "blas": blas(),
            "system": f"{platform.system()} {platform.machine()}", "cores": len(os.sched_getaffinity(0)),
            "cpu": kernels.cpu_info("model name") or platform.processor(),
            "cpu_features": [name for name in FEATURES if name in kernels.cpu_flags()],
            "instruction_sets": kernels.status(), "in_use": getattr(registry._cpp, "__name__", "").rpartition(".")[2],
            "other_modules": {name: find_spec(f"{kernels.EXTENSIONS}.{name}") is not None for name in OTHER},
            "cuda": {backend: cuda_state(backend) for backend in ("cuda", "cudasim")},
            "ops": dict(registry.select("auto").backends), "optional": optional()}


def info_page(facts: dict[str, Any]) -> str:
    """The same as text."""
    lines = [f"minillm {facts['minillm']}, Python {facts['python']}, NumPy {facts['numpy']} ({facts['blas']})",
             f"{facts['system']}, {facts['cpu']}, {facts['cores']} cores",
             f"CPU features: {' '.join(facts['cpu_features']) or 'none that there are kernels for'}", "",
             f"C++ kernels (nothing is built in this checkout: those of {BORROWED})" if BORROWED else "C++ kernels"]
    for isa, why_not in facts["instruction_sets"].items():
        state = "in use" if isa == facts["in_use"] else why_not or "built, can be chosen with MINILLM_CPU=" + isa
        lines.append(f"    {isa:<10}{state}")
    if not facts["in_use"]:
        lines.append(f"    none in use: everything runs on NumPy. To build them: {kernels.how(kernels.best())}")
    lines += [f"    {backend:<10}{state}" for backend, state in facts["cuda"].items()]
    for name, built in facts["other_modules"].items():
        state = (f"built: {OTHER[name]}{LIMITS.get(name, '')}" if built
                 else f"{OTHER[name]} runs in Python: {kernels.why_not(name)}")
        lines.append(f"    {name:<10}{state}")
    lines += ["", "ops (backend of `auto`)"]
    lines += [f"    {op:<22}{source}" for op, source in facts["ops"].items()]
    lines += ["", "optional packages"]
    return "\n".join(lines + [f"    {name:<14}{text}" for name, text in facts["optional"].items()])


def cuda_state(backend: str) -> str:
    """One line on the CUDA kernels ("cuda"), or on the emulator that runs them on any CPU ("cudasim")."""
    module = registry.cuda(backend)
    if module is None:
        return kernels.why_not(backend)
    state = f"built, {module.driver_problem() or 'can be chosen with select, and trains a GPT-2 (train.backend)'}"
    lacking = missing(backend, list(registry.OPS))
    return state + f"; no kernels of {', '.join(lacking)}" * bool(lacking)


def blas() -> str:
    return np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "unknown BLAS")


def optional() -> dict[str, str]:
    """Versions of the optional packages, or what they are for where they are missing."""
    found = {}
    for name, use in OPTIONAL.items():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = f"not installed (for {use})"
    return found
