"""A model on one's own kernels: select({"layernorm": "file:my.c"}), or "file:my.py:forward,backward" for Python."""
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...ops.table import OPS, REFERENCE, functions
from .build import SOURCES, compile_kernel, functions_of
from .call import caller, given_by_name, named_values, pair, sizes_of

FOLDERS = []            # of compiled kernels; they go with the process


def own_functions(op: str, target: str) -> list[Callable]:
    """The op's functions from a file of one's own; what the file lacks comes from the NumPy reference.

    Raises ValueError for a file that is not there, or has nothing for the op, or does not compile.
    """
    file, _, names = target.partition(":")
    path = Path(file)
    if not path.is_file() or path.suffix not in (*SOURCES, ".so", ".py"):
        raise ValueError(f"file:{target} must be an existing .c, .cpp, .so or .py file")
    if OPS[op].kind == "update":
        raise ValueError(f"file:{target}: {op} works on the model's own memory and cannot be replaced so")
    return python_functions(op, path, names) if path.suffix == ".py" else compiled_functions(op, path)


def compiled_functions(op: str, path: Path) -> list[Callable]:
    bound = functions_of(path, op)
    folder = tempfile.TemporaryDirectory(prefix="minillm-kernel-")
    FOLDERS.append(folder)
    calls = caller(compile_kernel(path, bound, Path(folder.name)), len(bound))
    theirs = {function.direction: (function, call) for function, call in zip(bound, calls)}
    return completed(op, theirs)


def completed(op: str, theirs: dict[str, tuple]) -> list[Callable]:
    """Their functions as a pair; a forward that they lack is the reference's, and so is a backward, which then does
    the reference's forward again for its cache."""
    forward, backward = pair(op, theirs)
    reference = [REFERENCE[name] for name in functions(OPS[op])]

    def reference_forward(*args: Any) -> Any:
        given = given_by_name(op, args)
        out, cache = reference[0](*args)
        found = dict(zip(("s", "out"), out)) if isinstance(out, tuple) else {"out": out}
        values = named_values(op, given)
        return out, (given, values, sizes_of(op, values), found | OPS[op].kept(given, cache), {})

    def reference_backward(dout: Any, cache: tuple, into: Any = None) -> Any:
        _, made = reference[0](**cache[0])
        return reference[1](dout, made, into) if into is not None else reference[1](dout, made)

    both = [forward if "forward" in theirs else reference_forward,
            backward if "backward" in theirs else reference_backward]
    if OPS[op].kind != "pair":
        return [lambda *args: forward(*args)[0]]
    return both


def python_functions(op: str, path: Path, names: str) -> list[Callable]:
    """The functions of a Python file, which is run; a backward without `into` gets it here."""
    spec = importlib.util.spec_from_file_location(f"kernel_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wanted = functions(OPS[op])
    chosen = names.split(",") if names else [plain if hasattr(module, plain) else name
                                             for name, plain in zip(wanted, ("forward", "backward"))]
    if len(chosen) != len(wanted) or not all(hasattr(module, name) for name in chosen):
        raise ValueError(f"{path.name} must have {' and '.join(wanted)} (or forward and backward, or FILE.py:A,B)")
    found = [getattr(module, name) for name in chosen]
    return [found[0], with_into(found[1])] if len(found) > 1 else found


def with_into(backward: Callable) -> Callable:
    """A backward that adds the last gradients to the arrays of `into`, as ours do."""
    def adding(dout: Any, cache: tuple, into: Any = None) -> Any:
        grads = backward(dout, cache)
        if into is None:
            return grads
        grads = list(grads)
        for place, array in zip(range(len(grads) - len(into), len(grads)), into):
            if array is not None:
                array += grads[place]
                grads[place] = array
        return tuple(grads)
    return adding
