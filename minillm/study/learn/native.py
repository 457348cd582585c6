"""The stages for an exercise in C or CUDA: its body is written, it compiles, and the kernel bench finds nothing.

The kernel bench runs a kernel in a process of its own, with limits of its own; CUDA on the emulator, which tells no
speed.
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
SKIPPED = "some threads do not come to it: no __syncthreads() in an if that only some take, nor behind a return"
MISTAKES = {    # what the emulator reports -> what a learner has most often done
    "race": "two threads use one place without a barrier between: is a __syncthreads() missing before or after?",
    "divergence": SKIPPED,
    "deadlock": SKIPPED,
    "out of bounds": "more threads than elements, or a loop that goes one step too far: which condition is missing?",
    "uninitialised": "nobody has written it yet: is a __syncthreads() missing before, or a value to begin with?",
    "bank conflicts": "threads of a warp meet in one bank: swap the two indices, or pad the rows by one",
    "uncoalesced": "neighbours in threadIdx.x should read neighbours in memory",
}


def stages_in_c(exercise: Exercise, path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "written", lambda: written(exercise, path)
    kernels: list = []
    yield "compiles", lambda: compiles(exercise, path, kernels)
    for kernel in kernels:
        for finding in check_kernel(kernel, seed=19):
            yield finding.check, partial(passed, finding.passed, with_mistake(finding.check, finding.message))
    for kernel in kernels:
        if not kernel.device:
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
        kernels += [kernel for kernel in subjects(str(path), exercise.op)
                    if kernel.device or kernel.name in exercise.solve]
    except (DoesNotCompile, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise Wrong(next((line for line in lines if "error:" in line), lines[0])) from None
    return "the compiler takes it without a complaint"


def with_mistake(check: str, message: str) -> str:
    """A finding of the emulator, and the mistake that most often causes it."""
    kind = "divergence" if "divergence at " in message else check           # what else was found tells more
    return f"{message}: {MISTAKES[kind]}" if check in MISTAKES else message


def passed(right: bool, message: str) -> str:
    if not right:
        raise Wrong(message)
    return message


def speed(kernel: Any) -> str:
    row = bench_kernel(kernel, ("numpy", "cpu"), TIMED, rounds=4)
    words = ", ".join(f"{name} {times['warm']:.3g} ms" for name, times in row["ms"].items())
    return f"{words}; {row['roofline_percent']:.0f}% of the roofline"
