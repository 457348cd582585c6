"""A kernel under test: what it is given in a call, and where its results are found.

Two kinds: a C function with its library, and functions of a Python file with the signature of our pair. Both lay a
call out in shared memory for the child, and read the results there.
"""
import ast
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...kernels.own.binding import Function
from ...kernels.own.build import C_FLAGS, compile_kernel, functions_of
from ...kernels.own.call import Memory, arguments, own_of, results_of, shapes_of
from ...kernels.own.cuda.compile import compile_for_emulator, compile_for_gpu
from ...ops.table import OPS, functions
from .device import Device
from .exchange import read_solution
from .memory import Region, Shared, poisoned
from .sizes import ARRAYS, Precision, Rule, read_precision, read_sizes
from .workload import Workload


class Placed(NamedTuple):
    """One call in shared memory."""

    regions: list[Region]               # of all arrays, in the order of the child's addresses
    inputs: list[tuple[Region, bytes]]
    results: dict[str, Region]


@dataclass(frozen=True)
class CKernel:
    """A C function; `number` counts the functions of its library. `partner`: their forward, for a backward."""

    function: Function
    library: Path
    number: int
    count: int
    partner: "CKernel | None" = None
    folder: Any = field(default=None, repr=False)       # is removed with the last kernel in it
    device: Device | None = None                        # of a CUDA kernel
    sizes: tuple[Rule, ...] = ()                        # that it takes, if not all
    precision: Precision = ARRAYS                       # of the type that it computes in, if it says so

    name = property(lambda self: self.function.name + " on the GPU" * bool(self.device and self.device.name == "GPU"))
    op = property(lambda self: self.function.op)
    direction = property(lambda self: self.function.direction)
    dtype = property(lambda self: self.function.dtype)
    gives = property(lambda self: [slot.ours for slot in self.function.results()] + [self.function.returns] * bool(
        self.function.returns))
    added = property(lambda self: tuple(slot.ours for slot in self.function.results() if slot.added))

    ignores = property(lambda self: any(slot.ours == "ignore_index" for slot in self.function.slots))

    def job(self) -> dict[str, Any]:
        """What the child must load."""
        return {"library": str(self.library), "functions": self.count} | (self.device.job() if self.device else {})

    def lay_out(self, shared: Shared, work: Workload, at_end: bool = True, own: Any = None) -> tuple[Any, Placed]:
        """(what the child is told, where things are) of one call."""
        shapes = shapes_of(self.function.signature, work.sizes)
        before = {name: poisoned(shapes[name], self.dtype) if result.before is None
                  else result.before.reshape(shapes[name])
                  for name, result in work.results.items() if name in shapes}
        memory = arguments(self.function, work.values, work.sizes, before, own)
        regions = [shared.place(place.name, place.array, place.written, at_end) for place in memory]
        inputs = [(region, place.array.tobytes()) for region, place in zip(regions, memory) if not place.written]
        return [region.asked() for region in regions], Placed(regions, inputs, {})

    def request(self, asked: Sequence[Any]) -> dict[str, Any]:
        return {"function": self.number, "sets": list(asked)}

    def found(self, shared: Shared, placed: Placed, work: Workload) -> dict[str, np.ndarray]:
        """{our name: what a call left}."""
        memory = [Memory(region.name, shared.array(region).copy(), region.written) for region in placed.regions]
        found = results_of(self.function, memory, shapes_of(self.function.signature, work.sizes))
        return {name: array.reshape(work.results[name].expected.shape) for name, array in found.items()}

    def reads(self, name: str) -> str:
        """The workload's result for one of `gives`: the same."""
        return name

    def own(self, shared: Shared, placed: Placed) -> dict[str, np.ndarray]:
        """What a call left in memory of their own, for the backward."""
        return own_of(self.function, [Memory(r.name, shared.array(r).copy(), r.written) for r in placed.regions])


@dataclass(frozen=True)
class PyKernel:
    """A function of a Python file. `names`: {direction: name} of all that the file gives for the op."""

    path: Path
    op: str
    direction: str
    names: dict[str, str]
    dtype: str = "float32"
    entrant: str = ""                   # "numpy", "cpu" or "torch": one of ours, and no file
    style: str = "pair"                 # "returns" or "fills": takes the C signature's inputs, and gives its results so
    folder: Any = field(default=None, repr=False)
    device = None
    sizes = ()
    precision = ARRAYS
    added = ()
    partner = None
    ignores = True

    name = property(lambda self: self.names[self.direction])

    @property
    def gives(self) -> list[str]:
        spec = OPS[self.op]
        if self.style != "pair":
            return [a.name for a in spec.signatures()[self.direction == "backward"].results]
        if self.direction == "backward":
            return [f"d{name}" for name in spec.differentiable]
        return [a.name for a in spec.signatures()[0].results if a.name in ("s", "out") or spec.kind == "update"]

    def job(self) -> dict[str, Any]:
        return {"library": "", "python": str(self.path.resolve()), "names": self.names, "entrant": self.entrant,
                "op": self.op, "root": str(Path(__file__).parents[3])}

    def lay_out(self, shared: Shared, work: Workload, at_end: bool = True, own: Any = None) -> tuple[Any, Placed]:
        regions: list[Region] = []
        inputs: list[tuple[Region, bytes]] = []
        in_place = [a.name for a in OPS[self.op].signatures()[0].results] if OPS[self.op].kind == "update" else []

        def put(named: dict[str, Any]) -> dict[str, Any]:
            asked: dict[str, Any] = {}
            for name, value in named.items():
                if isinstance(value, np.ndarray):
                    regions.append(shared.place(name, value, name in in_place, at_end))
                    if not regions[-1].written:
                        inputs.append((regions[-1], value.tobytes()))
                    asked[name] = regions[-1].asked()
                else:
                    asked[name] = list(value) if isinstance(value, tuple) else value
            return asked

        backward = self.direction == "backward" and self.style == "pair"
        douts: dict[str, Any] = {n: work.values[n] for n in ("dsum", "dout") if backward and n in work.values}
        given = douts if backward else work.args if self.style == "pair" else self.by_signature(work)
        held, shared.held = shared.held, None if backward else shared.held
        told: dict[str, Any] = {"args": put(work.args) if backward else {}, "cache": ""}    # its forward runs at once
        shared.held = held
        told["given"] = put(given)
        if backward and "forward" not in self.names:
            import pickle
            told["cache"] = pickle.dumps(work.cache).hex()
        results = {name: shared.place(name, poisoned(work.results[self.reads(name)].expected.shape,
                                                     self.dtype_of(name)), True,
                                      at_end) for name in self.gives} if not in_place else {
            region.name: region for region in regions if region.written}
        told["results"] = [] if in_place else [region.asked() for region in results.values()]
        return told, Placed([*regions, *results.values()], inputs, results)

    def by_signature(self, work: Workload) -> dict[str, Any]:
        """The C signature's inputs and its numbers that are no sizes."""
        signature = OPS[self.op].signatures()[self.direction == "backward"]
        names = [*(a.name for a in signature.inputs), *(name for name in signature.scalars if name in work.args)]
        return {name: work.values[name] for name in names}

    def reads(self, name: str) -> str:
        """The workload's result for a gradient; two inputs may share one."""
        shared = [f"d{other}" for other in OPS[self.op].shared_gradient]
        return "dx" if name in shared else name

    def dtype_of(self, name: str) -> str:
        return "float64" if OPS[self.op].kind == "reduce" else self.dtype

    def request(self, asked: Sequence[Any]) -> dict[str, Any]:
        kind = OPS[self.op].kind if self.style == "pair" else self.style
        return {"direction": self.direction, "kind": kind, "sets": list(asked)}

    def found(self, shared: Shared, placed: Placed, work: Workload) -> dict[str, np.ndarray]:
        return {self.reads(name): shared.array(region).copy() for name, region in placed.results.items()}


def subjects(target: str, op: str | None, bindings: Sequence[str] = (), cc: str | None = None, cflags: str = C_FLAGS,
             defines: Sequence[str] = (), includes: Sequence[str] = (), dtype: str = "float32") -> list[Any]:
    """The kernels of a file: FILE.c, FILE.cpp, FILE.so or FILE.py[:forward,backward]. With op None every function that
    is bound to one. Raises ValueError for what cannot be read, bound or compiled."""
    if target.endswith(".json"):
        return solved(Path(target), bindings, cc, cflags, dtype)
    file, _, names = target.partition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"FILE must be an existing .c, .cpp, .cu, .so or .py file: got {file}")
    if path.suffix == ".py":
        return python_kernels(path, names, op, dtype)
    if path.suffix not in (".c", ".cpp", ".cc", ".cxx", ".C", ".cu", ".so"):
        raise ValueError(f"FILE must end in .c, .cpp, .cu, .so or .py: got {path.name}")
    bound = functions_of(path, op, bindings)
    if path.suffix == ".cu":
        return cuda_kernels(path, bound, defines, includes)
    folder = tempfile.TemporaryDirectory(prefix="minillm-kernel-")
    library = compile_kernel(path, bound, Path(folder.name), cc, cflags, defines, includes)
    text = "" if path.suffix == ".so" else path.read_text(errors="replace")
    return kernels_in(library, bound, folder, text)


def cuda_kernels(path: Path, bound: list[Function], defines: Sequence[str], includes: Sequence[str]) -> list[CKernel]:
    """The kernels of a .cu file on the emulator; where there is a GPU and nvcc, on the GPU, too."""
    found: list[CKernel] = []
    text = path.read_text(errors="replace")
    for name, compile_ in (("emulator", compile_for_emulator), ("GPU", compile_for_gpu)):
        folder = tempfile.TemporaryDirectory(prefix="minillm-kernel-")
        if library := compile_(path, bound, Path(folder.name), defines, includes):
            found += kernels_in(library, bound, folder, text, name)
    return found


def kernels_in(library: Path, bound: list[Function], folder: Any, text: str,
               where: str = "") -> list[CKernel]:
    """The functions of a library; a backward's partner is its own forward. where: for CUDA, "emulator" or "GPU"."""
    found: list[CKernel] = []
    for number, function in enumerate(bound):
        device = Device(where, Path(folder.name) / f"report_{number}.jsonl") if where else None
        partner = next((k for k in found if k.op == function.op and k.direction == "forward"), None)
        found.append(CKernel(function, library, number, len(bound),
                             partner if function.direction == "backward" else None, folder, device,
                             read_sizes(text), read_precision(text)))
    return found


def solved(path: Path, bindings: Sequence[str], cc: str | None, cflags: str, dtype: str) -> list[Any]:
    """The kernel of a solution in the JSON that benches share."""
    folder = tempfile.TemporaryDirectory(prefix="minillm-solution-")
    file, function, op, spec = read_solution(path, Path(folder.name))
    options = " ".join(spec.get("compile_options", {}).get("cflags", []))
    if not file.endswith(".py"):
        found = subjects(file, op, bindings, cc, f"{cflags} {options}".strip(), dtype=dtype)
        return [kernel for kernel in found if kernel.name == function] or found
    direction = "backward" if "backward" in json.loads(path.read_text())["definition"] else "forward"
    style = "fills" if spec.get("destination_passing_style", True) else "returns"
    return [PyKernel(Path(file), op, direction, {direction: function}, dtype,
                     style=style if function not in functions(OPS[op]) else "pair", folder=folder)]


def python_kernels(path: Path, names: str, op: str | None, dtype: str) -> list[PyKernel]:
    """The functions of a Python file, which is read here but not run."""
    tree = ast.parse(path.read_text(), str(path))
    defined = [name for node in ast.walk(tree) for name in names_of(node)]
    ops = [op] if op else [name for name in OPS if set(functions(OPS[name])) & set(defined)]
    found = []
    for each in ops:
        known = dict(zip(("forward", "backward"), functions(OPS[each])))
        chosen = {("backward" if "back" in name or "bwd" in name else "forward"): name for name in names.split(",")
                  if name}
        if not chosen:
            chosen = {direction: name for direction in known for name in (known[direction], direction)
                      if name in defined}
        if missing := [name for name in chosen.values() if name not in defined]:
            raise ValueError(f"{path.name} has no function {missing[0]!r}: it has {', '.join(defined) or 'none'}")
        found += [PyKernel(path, each, direction, chosen, dtype) for direction in chosen]
    if not found:
        raise ValueError(f"{path.name} has no function for {'op ' + op if op else 'any op'}: name them, "
                         f"FILE.py:forward,"
                         f"backward; it has {', '.join(defined) or 'none'}")
    return found


def names_of(node: ast.AST) -> list[str]:
    """The names that a statement defines: a function, a variable, an import."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
