"""A gradient check of anybody's own pair of functions: `FILE.py:forward,backward`, and the inputs to try it on."""
import ast
import inspect
import re
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

USAGE = "a pair is FILE.py:forward,backward"


def load_pair(target: str) -> tuple[Callable, Callable, ModuleType]:
    """(forward, backward, the module) of "FILE.py:forward,backward"; of "FILE.py:NAME", NAME_forward and
    NAME_backward."""
    path, colon, names = target.rpartition(":")
    forward, comma, backward = names.partition(",")
    if not colon or not path or not forward or (comma and not backward):
        raise ValueError(f"{USAGE}: got {target!r}")
    if not comma:
        forward, backward = f"{forward}_forward", f"{forward}_backward"
    module = load(Path(path))
    for name in (forward, backward):
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{path} has no function {name}; {USAGE}")
    return getattr(module, forward), getattr(module, backward), module


def load(path: Path) -> ModuleType:
    """A Python file as a module; files next to it can be imported by it."""
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; {USAGE}")
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path} line {error.lineno}: {error.msg}") from None
    finally:
        sys.path.pop(0)
    return module


def inputs_of(module: ModuleType, forward: Callable, text: str | None, seed: int, dtype: str) -> dict[str, Any]:
    """The inputs of a forward: from --inputs, or from the file's function inputs()."""
    if text is not None:
        return parse_inputs(text, forward, seed, dtype)
    if not callable(getattr(module, "inputs", None)):
        raise ValueError('--inputs "x=(3,5) weight=(5,)" is needed, or a function inputs() in the file that returns '
                         "{name: array}")
    inputs = module.inputs()
    if isinstance(inputs, (tuple, list)):
        inputs = dict(zip(inspect.signature(forward).parameters, inputs))
    if not isinstance(inputs, dict):
        raise ValueError(f"inputs() must return a dict of names and arrays: got {type(inputs).__name__}")
    return inputs


def parse_inputs(text: str, forward: Callable, seed: int, dtype: str) -> dict[str, Any]:
    """'x=(3,5) eps=1e-5 ids=int(4,)<10': normal numbers of a shape, constants, and integers below a bound."""
    rng, inputs, rest = np.random.default_rng(seed), {}, text.strip().rstrip(",")
    pattern = re.compile(r"""(\w+)\s*=\s*(int\s*\([^)]*\)\s*<\s*\d+|\([^)]*\)|'[^']*'|"[^"]*"|[^\s,]+)[\s,]*""")
    while rest:
        found = pattern.match(rest)
        if not found:
            raise ValueError(f'--inputs must be such as "x=(3,5) eps=1e-5 ids=int(4,)<10": got {rest!r}')
        inputs[found[1]] = value_of(found[1], found[2], rng, dtype)
        rest = rest[found.end():]
    parameters = inspect.signature(forward).parameters
    wrong = [name for name in inputs if name not in parameters]
    if wrong and not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values()):
        raise ValueError(f"--inputs: the forward has no argument {wrong[0]}, but {', '.join(parameters)}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in inputs
               and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if missing:
        raise ValueError(f"--inputs: {missing[0]}, an argument of the forward, is missing")
    return {name: inputs[name] for name in parameters if name in inputs} if not wrong else inputs


def value_of(name: str, text: str, rng: np.random.Generator, dtype: str) -> Any:
    """One value of --inputs."""
    integers, text, below = text.startswith("int"), *text.removeprefix("int").partition("<")[::2]
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = None if text == "None" else text
    if isinstance(value, str) and text.startswith("("):
        raise ValueError(f"--inputs: the shape of {name} must be such as (3,5): got {text}")
    if isinstance(value, int) and text.strip().startswith("("):
        value = (value,)                                                    # (5) is meant as (5,)
    if isinstance(value, tuple):
        if not all(isinstance(n, int) and n > 0 for n in value):
            raise ValueError(f"--inputs: the shape of {name} must be positive integers: got {text}")
        return rng.integers(0, int(below), value) if integers else np.asarray(rng.standard_normal(value), dtype)
    return value
