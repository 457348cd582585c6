"""minillm: a language model from scratch, every derivative by hand, in NumPy and C++."""
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
from .version import __version__

__all__ = ["GPT", "GPTConfig", "Llama", "LlamaConfig", "TrainConfig", "Tokenizer", "AdamW", "gradcheck", "select",
           "generate", "load_model", "ops", "optim", "__version__"]
