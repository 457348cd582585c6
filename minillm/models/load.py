"""A model and its tokenizer from one directory, for everything that turns text into numbers and back."""
from pathlib import Path

import numpy as np

from ..kernels.select import select
from ..tokenizer import Tokenizer
from .gpt2 import GPT


def load(directory, backend="auto", dtype=np.float32):
    """(GPT, Tokenizer) of a run directory, or of a GPT-2 directory with tokenizer.json.

    Raises FileNotFoundError for what is missing, and ValueError for files that are broken or do not belong together.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: there is no such directory; a model's holds config.json, "
                                "model.safetensors and tokenizer.json")
    tokenizer = Tokenizer.from_pretrained(directory)
    model = GPT.from_pretrained(directory, select(backend), dtype)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model only "
                         f"{model.config.vocab_size}")
    return model, tokenizer


def load_model(directory, ops=None, dtype=np.float32, weights=None):
    """The model of a directory, of the family that its config.json names (today: gpt2). Arguments: GPT.from_pretrained's."""
    return GPT.from_pretrained(directory, ops, dtype, weights)
