"""Kernel dispatch: `select(backend)` gives the frozen namespace of op implementations that a model runs on.

The table itself is ops/table.py; this is the only file that knows the extensions.
"""
from collections import namedtuple
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, cast

from .. import ops as reference
from ..ops.table import OPS, Dims, Spec, functions
from .load import EXTENSIONS, best, cpu_flags, how
from .load import load as load_kernels

__all__ = ["OPS", "Dims", "Ops", "Spec", "check_kernels", "check_ops", "choices", "functions", "multiplies_by_tiles",
           "select"]

try:
    _cpp, _problem = load_kernels(), None          # the compiled kernels, or None
except ImportError as error:                       # a wrong MINILLM_CPU or a broken extension: `check_kernels` says so
    _cpp, _problem = None, error

CPU = ("auto", "numpy", "cpu")


OF_MODELS = f"{__package__.partition('.')[0]}.models.weights."       # functions that are derived from those selected
NAMES = [name for spec in OPS.values() for name in functions(spec)]
STEPS = {       # compiled steps through a whole model: (its name, the ops that it stands for)
    "decode_step": ("decode_few", ("embedding", "layernorm", "linear", "attention_decode", "mlp", "head")),
    "llama_step": ("decode_llama", ("token_embedding", "rmsnorm", "projection", "linear", "rope", "attention_decode",
                                    "swiglu", "geglu", "softcap", "head")),
    "integer_linear": ("integer_linear", ("linear",)),              # no steps, but for quantized weights of any model
    "integer_panels": ("integer_panels", ("linear",)),
    "integer_panel_bytes": ("integer_panel_bytes", ("linear",)),
    "panel_linear": ("panel_linear", ("linear",)),                              # the same for weights in panels
    "panel_columns": ("panel_columns", ("linear",)),
    "fill_panels": ("fill_panels", ("linear",))}
Functions = cast(Any, namedtuple("Functions", [*NAMES, *STEPS, "backends"]))              # known when it runs


class Ops(Functions):                              # type: ignore[misc, valid-type]
    """The functions a model runs on, by name; it cannot be changed. `backends` says where each op comes from.

    `decode_step` is no op but the kernels' shortcut through GPT.decode, where all ops on its way are theirs; else
    None. `llama_step` is that through Llama.decode and those of its kin.
    """

    __slots__ = ()

    def _replace(self, **changed: Callable) -> Any:
        """A copy with other functions in some places, and so without the shortcuts (unless they are among them)."""
        return super()._replace(**dict.fromkeys(STEPS) | changed)

    def __deepcopy__(self, memo: dict) -> "Ops":
        return self                                 # nothing in it can be changed

    def __reduce__(self) -> tuple:
        """Pickled, it is what it was selected by. A model takes its types of weights into account again
        (models/weights.py). Raises TypeError for functions that others have put into it."""
        selected = select(dict(self.backends))
        for name, own, known in zip(self._fields, self[:-1], selected):
            if own is not None and name_of(own) != name_of(known) and not name_of(own).startswith(OF_MODELS):
                raise TypeError(f"ops with a function of one's own, {name}, cannot be pickled: pickle what makes them")
        return select, (dict(self.backends),)


def name_of(function: Any) -> str:
    function = getattr(function, "func", function)                          # of a composite's partial
    return f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', function)}"


def select(backend: str | dict[str, str] = "auto") -> Ops:
    """The namespace of ops for a backend: "auto", "numpy", "cpu", "cuda", "cudasim", or {op: "backend/variant"}.

    {op: "file:my.c"} takes a kernel of one's own (kernels/own). A string may be such a dict, "layernorm=file:my.c", or
    name a variant, such as "cpu/bf16": the ops that have it use it, the others the plain backend. Ops that a dict
    leaves out are "auto". An op that a backend lacks comes from NumPy. Raises ValueError for a name that does not
    exist, ImportError (with the command that builds it, or what it lacks) for a backend that is asked for by name and
    is not built or cannot run here, and whatever the backend for a wrong MINILLM_CPU or a broken extension.
    """
    check_kernels()
    if isinstance(backend, str) and "=" in backend:
        backend = dict(item.split("=", 1) for item in backend.split(",") if "=" in item)
    if isinstance(backend, str):
        choice = variant_where_there_is(backend)
    else:
        check_ops(backend)
        choice = {op: backend.get(op, "auto") for op in OPS}
    picked, sources = {}, {}
    for spec in sorted(OPS.values(), key=lambda spec: spec.composite):       # composites last: they use the others
        found, sources[spec.name] = implementation(spec, choice[spec.name])
        if spec.composite and sources[spec.name] == "numpy":
            parts = namedtuple("Parts", picked)(**picked)
            found = [partial(function, ops=parts) for function in found]
        picked |= zip(functions(spec), found)
    steps = {step: compiled_step(step, sources) for step in STEPS}
    return Ops(**picked, **steps, backends=MappingProxyType(sources))


def check_kernels() -> None:
    """Raise ImportError if the kernels could not be loaded. `import minillm` does not, so that commands can say it in
    a line, but nothing passes over it."""
    if _problem:
        raise ImportError(str(_problem)) from _problem


def compiled_step(step: str, sources: dict[str, str]) -> Callable | None:
    """A compiled step through a whole model (csrc/cpu/decode.cpp), if the ops that it stands for are compiled, too."""
    name, used = STEPS[step]
    return compiled(_cpp, name) if all(sources[op] in ("cpu", "cpu/bf16") for op in used) else None


def variant_where_there_is(backend: str) -> dict[str, str]:
    """{op: backend} for a string such as "cpu/bf16": without the variant for ops that lack it; one must have it."""
    plain, _, variant = backend.partition("/")
    having = {op for op, spec in OPS.items() if backend.replace("auto", "cpu") in spec.kernels}
    if variant and not having:
        known = sorted({name for spec in OPS.values() for name in spec.kernels if "/" in name})
        raise ValueError(f"no op has a variant {backend!r}: there is {', '.join(known)}")
    return {op: backend if op in having else plain for op in OPS}


def implementation(spec: Spec, choice: str) -> tuple[list[Callable], str]:
    """The functions of one op for one choice such as "cpu" or "cpu/2_blocked", and where they come from."""
    if choice.startswith("file:"):
        from .own.load import own_functions
        return own_functions(spec.name, choice[len("file:"):]), choice
    backend, _, variant = choice.partition("/")
    if backend not in ("auto", "numpy", "cpu", "cuda", "cudasim"):
        raise ValueError(f"unknown backend {choice!r}: expected auto, numpy, cpu, cuda, cudasim or one with /variant")
    module: Any = {"auto": _cpp, "cpu": _cpp, "numpy": None}[backend] if backend in CPU else cuda(backend)
    if backend not in ("auto", "numpy") and module is None:
        raise ImportError(f"the {backend} backend is not built: {how(best() if backend == 'cpu' else backend)}")
    if backend == "cuda" and module.driver_problem():
        raise ImportError(f"the cuda backend is built but cannot run here: {module.driver_problem()}")
    kernel = choice.replace("auto", "cpu")
    if module and kernel in spec.kernels:
        return [compiled(module, f"{name}_{variant}".rstrip("_")) for name in functions(spec)], kernel
    if variant:
        known = ", ".join(name for name in spec.kernels if "/" in name) or "none"
        raise ValueError(f"op {spec.name} has no variant {choice!r}: there is {known}")
    return [getattr(reference, name) for name in functions(spec)], "numpy"


@cache
def cuda(backend: str) -> Any:
    """The extension of "cuda" or "cudasim"; None where it is not built. A broken one raises its own ImportError."""
    name = f"{EXTENSIONS}.{backend}"
    return import_module(name) if find_spec(name) else None


def compiled(module: Any, name: str) -> Callable:
    """A function of the extension; one that was built from older sources is an error, not a silent fallback."""
    if not hasattr(module, name):
        raise ImportError(f"{module.__name__} has no {name}: it was built from other sources; build again: "
                          f"{how(best())}")
    return getattr(module, name)


def check_ops(names: Iterable[str]) -> None:
    """Raise ValueError unless every name is an op of the table."""
    for name in names:
        if name not in OPS:
            raise ValueError(f"unknown op {name!r}: expected one of {', '.join(OPS)}")


def choices(op: str, dtype: str | None = None) -> list[str]:
    """Every implementation of an op that can run here (and takes this dtype), as `select` names them: ["numpy", "cpu",
    "cpu/1_naive", ...]."""
    check_kernels()
    usable = {"cpu": _cpp, "cuda": cuda("cuda") and not cuda("cuda").driver_problem(), "cudasim": cuda("cudasim")}
    return ["numpy"] + [name for name, dtypes in OPS[op].kernels.items()
                        if usable[name.partition("/")[0]] and (dtype is None or dtype in dtypes)]


def multiplies_in_bf16() -> bool:
    """Whether bf16 GEMMs of the kernels in use run on instructions for them, and so in less time than float32's."""
    return _cpp is not None and _cpp.__name__.endswith((".avx512", ".amx")) and "avx512_bf16" in cpu_flags()


def multiplies_by_tiles() -> bool:
    """Whether bf16 GEMMs of the kernels in use run on AMX tiles."""
    return _cpp is not None and _cpp.__name__.endswith(".amx")
