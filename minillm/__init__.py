"""minillm: a language model from scratch, every derivative by hand, in NumPy and C++."""
from .config import GPTConfig, TrainConfig
from .generate import generate
from .gradcheck import gradcheck
from .model import GPT
from .optim import AdamW
from .registry import select
from .tokenizer import Tokenizer
from .version import __version__

__all__ = ["GPT", "GPTConfig", "TrainConfig", "Tokenizer", "AdamW", "gradcheck", "select", "generate"]
