"""Results that travel: the four JSON schemas that kernel benchmarks share (FlashInfer-Bench, SOL-ExecBench).

    definitions/OP/NAME.json         what is to be computed: axes, inputs, outputs, a reference `run`
    workloads/OP/NAME.jsonl          the sizes of each measured call (a trace without solution and evaluation)
    solutions/AUTHOR/OP/NAME/KERNEL.json     a kernel: its sources whole, its language, its entry point
    traces/OP/NAME.jsonl             one measured call each: status, error, milliseconds, machine

NAME is FUNCTION with its fixed axes, such as layernorm_forward_c768; B and T vary. Written with `kernel bench
--exchange DIR`; `kernel check SOLUTION.json` and `kernel bench SOLUTION.json --workload FILE.jsonl` read what others
wrote for these names.
"""
import json
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...ops.spec import Signature
from ...ops.table import OPS, Dims, functions
from ...storage.atomic import write_json, write_jsonl
from .template import sizes_at

DTYPES = {"int": "int64", "uint64": "int64", "double": "float64"}
LANGUAGES = {".c": "cpp", ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp", ".C": "cpp", ".py": "python"}
VARIABLE = ("B", "T", "N", "S")


def definition(op: str, direction: str, dims: Dims, dtype: str = "float32") -> dict[str, Any]:
    """What one function computes, at the widths of `dims`."""
    signature = OPS[op].signatures()[direction == "backward"]
    sizes = sizes_at(op, dims)
    letters = sorted({letter for a in (*signature.results, *signature.inputs) for letter in a.shape})
    axes: dict[str, Any] = {name: axis(name, sizes) for name in letters}
    scalars = {name: {"shape": None, "dtype": "float32"} for name in numbers(signature)}
    inputs = tensors(signature.inputs, dtype) | scalars
    outputs = tensors(signature.results, dtype)
    return {"name": name_of(op, direction, dims), "description": f"{op}, {direction}", "op_type": op, "axes": axes,
            "inputs": inputs, "outputs": outputs, "reference": reference(op, direction, signature)}


def tensors(arguments: tuple, dtype: str) -> dict[str, dict[str, Any]]:
    return {a.name: {"shape": list(a.shape), "dtype": DTYPES.get(a.type, dtype)} for a in arguments}


def axis(name: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """An axis: variable, of constant length, or a multiple of another."""
    letter = name.lstrip("0123456789")
    if name in VARIABLE:
        return {"type": "var"}
    factor = int(name[:len(name) - len(letter)] or 1)
    return {"type": "const", "value": factor * (sizes[letter] if letter else 1)}


def numbers(signature: Signature) -> list[str]:
    """The scalars that are no sizes: eps, scale, ignore_index."""
    letters = {letter.lstrip("0123456789") for a in (*signature.results, *signature.inputs) for letter in a.shape}
    return [name for name in signature.scalars if name not in letters | {"B", "T", "NH", "HS"}]


def name_of(op: str, direction: str, dims: Dims) -> str:
    function = functions(OPS[op])[direction == "backward"]
    return f"{function}_c{dims.C}_nh{dims.NH}_v{dims.V}"


def reference(op: str, direction: str, signature: Signature) -> str:
    """`run` by the NumPy reference, for tensors of PyTorch or arrays."""
    names = ", ".join([*(a.name for a in signature.inputs), *numbers(signature)])
    return (f"from minillm.workbench.kernel.exchange import run_reference\n\n\ndef run({names}):\n"
            f"    return run_reference({op!r}, {direction!r}, locals())\n")


def run_reference(op: str, direction: str, given: Mapping[str, Any]) -> Any:
    """The results of one function of the C signature on its inputs by name; a backward makes its forward again."""
    from .workload import backward, evaluate
    given = {name: np.asarray(value) if hasattr(value, "shape") else value for name, value in given.items()}
    args = OPS[op].sample(np.random.default_rng(0), "float32", Dims())
    args = {name: given.get("NH" if name == "n_head" else name, value) for name, value in args.items()} | (
        {"start": 0} if "start" in args else {})
    dtype = next(value.dtype for value in given.values() if hasattr(value, "dtype") and value.dtype.kind == "f")
    made = evaluate(op, args, dtype, np.random.default_rng(0), "forward")
    results = made["forward"] if direction == "forward" else backward(
        op, [given[name] for name in ("dsum", "dout") if name in given], made["cache"])
    found = tuple(results[a.name] for a in OPS[op].signatures()[direction == "backward"].results)
    return found if len(found) > 1 else found[0]


def workload_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a measured call: a trace without solution and evaluation."""
    dims = Dims(**row["dims"])
    signature = OPS[row["op"]].signatures()[row["direction"] == "backward"]
    sizes = sizes_at(row["op"], dims)
    axes = {letter: sizes[letter] for a in (*signature.results, *signature.inputs) for letter in a.shape
            if letter in VARIABLE}
    sample = OPS[row["op"]].sample(np.random.default_rng(0), "float32", Dims())
    inputs: dict[str, Any] = {a.name: {"type": "random"} for a in signature.inputs}
    inputs |= {name: {"type": "scalar", "value": sample.get(name, 0)} for name in numbers(signature)}
    key = json.dumps([row["op"], row["direction"], row["dims"]])
    return {"definition": name_of(row["op"], row["direction"], dims), "solution": None, "evaluation": None,
            "workload": {"uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, key)), "axes": axes, "inputs": inputs}}


def solution(row: Mapping[str, Any], path: Path, author: str) -> dict[str, Any]:
    """A kernel with its source."""
    return {"name": path.stem, "definition": name_of(row["op"], row["direction"], Dims(**row["dims"])),
            "author": author,
            "description": f"{row['function']} of {path.name}",
            "spec": {"language": LANGUAGES[path.suffix], "target_hardware": [row["cpu"]], "binding": "c_pointers",
                     "entry_point": f"{path.name}::{row['function']}",
                     "destination_passing_style": path.suffix != ".py"},
            "sources": [{"path": path.name, "content": path.read_text()}]}


def trace(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A measured call: it passed, since nothing else is measured."""
    mine, numpy = row["ms"]["yours"]["warm"], row["ms"]["numpy"]["warm"]
    return workload_line(row) | {
        "solution": path.stem,
        "evaluation": {"status": "PASSED", "log": "", "log_file": "", "timestamp": row["date"],
                       "correctness": {"max_relative_error": row["error"], "max_absolute_error": row["absolute_error"]},
                       "performance": {"latency_ms": mine, "reference_latency_ms": numpy,
                                       "speedup_factor": numpy / mine},
                       "environment": {"hardware": row["cpu"], "libs": {"numpy": np.__version__,
                                                                        "python": platform.python_version()}}}}


def write(folder: Path, rows: list[dict[str, Any]], path: Path, author: str = "you") -> None:
    """All four for each row; workloads and traces are added to what is there."""
    for row in rows:
        op, name = row["op"], name_of(row["op"], row["direction"], Dims(**row["dims"]))
        put(folder / "definitions" / op / f"{name}.json",
            definition(op, row["direction"], Dims(**row["dims"]), row["dtype"]))
        put(folder / "solutions" / author / op / name / f"{path.stem}.json", solution(row, path, author))
        add(folder / "workloads" / op / f"{name}.jsonl", workload_line(row))
        add(folder / "traces" / op / f"{name}.jsonl", trace(row, path))


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value, indent=1)


def add(path: Path, value: dict[str, Any]) -> None:
    """A line more, unless it is there."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if value not in lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [*lines, value])


def read_solution(path: Path, folder: Path) -> tuple[str, str, str, dict[str, Any]]:
    """Unpack a solution into `folder`: (file, function, op, spec). Raises ValueError for what is no solution of
    ours."""
    value = json.loads(path.read_text())
    try:
        file, _, function = value["spec"]["entry_point"].partition("::")
        wanted = value["definition"]
        op = next(op for op in OPS for name in functions(OPS[op]) if wanted == name or wanted.startswith(f"{name}_c"))
        sources = [(folder / source["path"], source["content"]) for source in value["sources"]]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path.name} must be a solution: name, definition, spec with entry_point, sources") from None
    except StopIteration:
        raise ValueError(f"{path.name} solves {wanted!r}, which is no function of the op table") from None
    for source, content in sources:
        if folder.resolve() not in source.resolve().parents:
            raise ValueError(f"{path.name} must hold paths inside its own folder: got {source}")
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(content)
    return str(folder / file), function, op, value["spec"]


def dims_of_workload(path: Path, dims: Dims) -> Dims:
    """The sizes of a workload file's first line: B and T, or N as T."""
    axes = json.loads(path.read_text().splitlines()[0])["workload"]["axes"]
    known = {name: int(axes[name]) for name in ("B", "T") if name in axes}
    return dims._replace(**(known or {"B": 1, "T": int(axes.get("N", dims.T))}))
