"""The stages for an exercise in C: its body is written, it compiles, and the kernel bench finds nothing.

The kernel bench runs a kernel in a process of its own, with limits of its own.
"""
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...kernels.own.build import DoesNotCompile
from ...ops.table import Dims
from ...workbench.kernel.bench import bench_kernel
from ...workbench.kernel.check import check_kernel
from ...workbench.kernel.subject import subjects
from .exercise import Exercise, Wrong

TIMED = Dims(B=4, T=64, C=256, NH=4, V=512)


def stages_in_c(exercise: Exercise, path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "written", lambda: written(exercise, path)
    kernels: list = []
    yield "compiles", lambda: compiles(exercise, path, kernels)
    for kernel in kernels:
        for finding in check_kernel(kernel, seed=19):
            yield finding.check, partial(passed, finding.passed, finding.message)
    for kernel in kernels:
        yield "speed", partial(speed, kernel)


def written(exercise: Exercise, path: Path) -> str:
    text = re.sub(r"(?s)/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="utf-8", errors="replace"))
    if "..." in text:
        raise Wrong("`...` still stands there: write what belongs in its place")
    for name in exercise.solve:
        if not re.search(rf"\b{name}\s*\(", text):
            raise Wrong(f"there is no function {name}")
    return f"{', '.join(exercise.solve)} written"


def lacking() -> str:
    """What a judgement of C needs and is not installed here."""
    if not shutil.which("gcc"):
        return "this exercise needs the C compiler gcc, which is not installed here"
    return "" if find_spec("cffi") else "this exercise needs cffi: pip install 'minillm[playground]'"


def compiles(exercise: Exercise, path: Path, kernels: list) -> str:
    if missing := lacking():
        raise Wrong(f"not judged: {missing}")
    try:
        kernels += [kernel for kernel in subjects(str(path), exercise.op) if kernel.name in exercise.solve]
    except (DoesNotCompile, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise Wrong(next((line for line in lines if "error:" in line), lines[0])) from None
    return "the compiler takes it without a complaint"


def passed(right: bool, message: str) -> str:
    if not right:
        raise Wrong(message)
    return message


def speed(kernel: Any) -> str:
    row = bench_kernel(kernel, ("numpy", "cpu"), TIMED, rounds=4)
    words = ", ".join(f"{name} {times['warm']:.3g} ms" for name, times in row["ms"].items())
    return f"{words}; {row['roofline_percent']:.0f}% of the roofline"
