"""minillm: a language model from scratch, every derivative by hand, in NumPy and C++."""
from .config import GPTConfig, TrainConfig
from .generation.decode import generate
from .gradcheck import gradcheck
from .models.gpt2 import GPT
from .train.optim import AdamW
from .kernels.select import select
from .tokenizer import Tokenizer
from .version import __version__

__all__ = ["GPT", "GPTConfig", "TrainConfig", "Tokenizer", "AdamW", "gradcheck", "select", "generate"]
