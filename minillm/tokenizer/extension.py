"""Loading the C++ extensions of text, where they are built."""
import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

BACKENDS = ("auto", "python", "cpp")
BUILD = "pip install -e . (with a C++ compiler)"


def load_extension(backend: str = "auto", name: str = "text") -> ModuleType | None:
    """The extension minillm._cpp.NAME, or None for Python. Raises ValueError; ImportError if "cpp" is not to be had.

    An extension that is there but broken raises its own ImportError: it is never passed over in silence.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
    if backend == "python" or backend == "auto" and os.environ.get("MINILLM_CPU") == "none":
        return None
    if find_spec(f"minillm._cpp.{name}") is None:
        if backend == "cpp":
            raise ImportError(f"minillm._cpp.{name} is not built; to build it: {BUILD}")
        return None
    return import_module(f"minillm._cpp.{name}")
