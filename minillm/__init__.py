"""minillm: a language model from scratch, every derivative by hand, in NumPy and C++.

Nothing is imported before it is used: a public name brings its module along, and NumPy with it.
"""
import sys
from importlib import import_module
from types import ModuleType

from .version import __version__

TYPE_CHECKING = False              # type checkers take it for true; typing itself takes milliseconds to import
if TYPE_CHECKING:
    from . import ops, optim
    from .config import GPTConfig, LlamaConfig, TrainConfig
    from .generate import generate
    from .gradcheck import gradcheck
    from .kernels.select import select
    from .models.gpt2 import GPT
    from .models.llama import Llama
    from .models.load import load_model
    from .optim import AdamW
    from .tokenizer import Tokenizer

__all__ = ["GPT", "GPTConfig", "Llama", "LlamaConfig", "TrainConfig", "Tokenizer", "AdamW", "gradcheck", "select",
           "generate", "load_model", "ops", "optim", "__version__"]
HOME = {"GPT": "models.gpt2", "GPTConfig": "config", "Llama": "models.llama", "LlamaConfig": "config",
        "TrainConfig": "config", "Tokenizer": "tokenizer", "AdamW": "optim", "gradcheck": "gradcheck",
        "select": "kernels.select", "generate": "generate", "load_model": "models.load"}


class Package(ModuleType):
    """This module's own type: its functions gradcheck and generate win over the modules of the same names."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in HOME and isinstance(value, ModuleType)):               # Python binds what it has imported here
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        """A public name, or a subpackage."""
        from importlib.util import find_spec
        if name in HOME:
            value = getattr(import_module(f"{__name__}.{HOME[name]}"), name)
        elif name.startswith("_") or "." in name or not find_spec(f"{__name__}.{name}"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            value = import_module(f"{__name__}.{name}")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *__all__})


sys.modules[__name__].__class__ = Package
