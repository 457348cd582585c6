"""Build a rewritten .cu file against the CUDA emulator (csrc/cuda/emulator/anybody), and read what its runtime found.

The compiler is told to instrument every memory access as for ThreadSanitizer, and integer overflow and array bounds as
for UBSan; their libraries are not linked: the emulator's runtime stands in for them and sees each access.
"""
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .build import run_compiler

HEADERS = Path(__file__).resolve().parents[3] / "csrc" / "cuda" / "emulator" / "anybody"
WATCHED = ["-std=c++17", "-O1", "-g", "-fPIC", "-w", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
           "-fno-optimize-sibling-calls", "-fsanitize=thread,signed-integer-overflow,bounds,alignment"]
# A float4 is loaded whole; a barrier is not copied into two branches.
GCC = ["-fno-tree-sra", "-fno-ipa-sra", "-fno-thread-jumps", "--param", "tsan-distinguish-volatile=1"]
CLANG = ["-mllvm", "-tsan-distinguish-volatile=1"]
WRAPPED = "-Wl," + ",".join(f"--wrap={name}" for name in ("memcpy", "memmove", "memset", "malloc", "free"))
RUNTIME = ["-std=c++17", "-O2", "-fPIC"]


class Found(NamedTuple):
    """A finding of the runtime, with the lines of the user's source."""

    kind: str                   # csrc/cuda/emulator/anybody/interface.h lists them
    severity: str               # error, note or slow
    text: str
    file: str                   # "" and 0: unknown
    line: int
    kernel: str
    block: tuple[int, ...]      # () for what the host did
    thread: tuple[int, ...]
    times: int

    def __str__(self) -> str:
        place = f"{Path(self.file).name}:{self.line}: " if self.line else ""
        who = f" (thread {self.thread} of block {self.block}{f', {self.times} times' if self.times > 1 else ''})"
        return f"{place}{self.kind}: {self.text}{who if self.thread else ''}"


def build(source: Path, library: Path, flags: Sequence[str] = (), compiler: str | None = None,
          executable: bool = False) -> None:
    """Compile a rewritten source into a shared library (or a program). Raises DoesNotCompile with the compiler's
    words."""
    compiler = compiler or os.environ.get("CXX", "g++")
    own = CLANG if "clang" in compiler else GCC
    runtime = runtime_library()
    compile_(compiler, [*WATCHED, *own, f"-I{HEADERS}", *flags, "-c", str(source), "-o", f"{library}.o"], source.name)
    compile_(compiler, [] if executable else ["-shared"], source.name, [
        f"{library}.o", "-o", str(library), str(runtime), WRAPPED, f"-Wl,-rpath,{runtime.parent}"])


def runtime_library() -> Path:
    """The runtime, compiled once for each version of its sources."""
    if not HEADERS.exists():
        raise ValueError("the CUDA emulator needs minillm's sources (csrc): pip install -e . in a checkout")
    sources = sorted((HEADERS / "runtime").glob("*.cpp"))
    inputs = [*HEADERS.glob("*.h"), *(HEADERS / "runtime").iterdir(), HEADERS.parent / "fiber.h"]
    name = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(inputs))).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minillm" / "cuda"
    library = home / f"libminillm_cuda_{name}.so"
    if library.exists():
        return library
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock, tempfile.TemporaryDirectory(dir=home) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)            # of processes that begin together one builds, the others wait
        if library.exists():
            return library
        made = Path(folder) / library.name
        objects = []
        for path in sources:
            objects.append(f"{folder}/{path.stem}.o")
            compile_("g++", [*RUNTIME, "-c", str(path), "-o", objects[-1]], path.name)
        compile_("g++", ["-shared", *objects, "-o", str(made), "-ldl"], "the emulator's runtime")
        made.replace(library)
    return library


def compile_(compiler: str, flags: Sequence[str], what: str, more: Sequence[str] = ()) -> None:
    run_compiler([*shlex.split(compiler), *flags, *more], what, ", which the CUDA emulator needs")


def findings(log: Path) -> list[Found]:
    """What the runtime wrote to the file named by MINILLM_CUDA_REPORT, in the order in which it was found."""
    rows: dict[int, dict] = {}
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        row = json.loads(line)
        rows.setdefault(row["id"], row)["count"] = row["count"]     # lines without `kind` come last: counts alone
    places = lines_of({(row["module"], row[key]) for row in rows.values() for key in ("pc", "other") if row[key]})
    found = [found_in(row, places) for row in rows.values() if not one_place(row, places)]
    return without_twins([item for item in found if not ours(item)])


def ours(item: Found) -> bool:
    """The trampolines (cuda/compile.py) still hold the arguments' arrays when a call is asked what it leaves behind."""
    return item.kind == "leak" and Path(item.file).name == "minillm"


def one_place(row: dict, places: dict[tuple[str, int], tuple[str, int]]) -> bool:
    """Threads at two copies of one barrier, which the compiler made, have not diverged."""
    here, there = (places.get((row["module"], row[key])) for key in ("pc", "other"))
    return row["kind"] == "divergence" and here is not None and here == there


def found_in(row: dict, places: dict[tuple[str, int], tuple[str, int]]) -> Found:
    file, line = places.get((row["module"], row["pc"]), (row["file"], row["line"]))
    other = places.get((row["module"], row["other"]), ("", 0))
    there = f"{Path(other[0]).name}:{other[1]}" if other[1] else "another place"
    return Found(row["kind"], row["severity"], row["text"].replace("{other}", there), file, line, row["kernel"],
                 tuple(row.get("block", ())), tuple(row.get("thread", ())), row["count"])


def without_twins(found: Sequence[Found]) -> list[Found]:
    """One finding for one kind in one line: the same fault in two instructions is told once."""
    first: dict[tuple[str, str, int, str], Found] = {}
    for item in found:
        first.setdefault((item.kind, item.file, item.line, "" if item.line else item.text), item)
    return list(first.values())


def lines_of(places: set[tuple[str, int]]) -> dict[tuple[str, int], tuple[str, int]]:
    """{(module, offset): (file, line)} of the innermost line that is not of the emulator's headers."""
    found = {}
    for module in {module for module, _ in places}:
        offsets = sorted(offset for each, offset in places if each == module)
        for offset, frames in zip(offsets, frames_of(module, offsets), strict=False):
            own = [frame for frame in frames if not frame[0].startswith(str(HEADERS)) and frame[1]]
            if own:
                found[module, offset] = own[0]
    return found


def frames_of(module: str, offsets: Sequence[int]) -> list[list[tuple[str, int]]]:
    """The inlined frames of each offset, innermost first, by addr2line of the compiler's binutils."""
    tool = shutil.which("addr2line") or shutil.which("llvm-addr2line")
    if not tool:
        return []
    said = subprocess.run([tool, "-a", "-i", "-e", module, *(hex(offset) for offset in offsets)], capture_output=True,
                          text=True).stdout
    frames: list[list[tuple[str, int]]] = []
    for line in said.splitlines():
        if line.startswith("0x"):
            frames.append([])
        else:
            file, _, number = line.split(" (")[0].rpartition(":")
            frames[-1].append((file, int(number) if number.isdigit() else 0))
    return frames
