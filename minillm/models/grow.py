"""A trained model with a larger vocabulary or another context length, from which training goes on.

New rows of the token embedding, and of an untied head, are the mean of the old ones plus a little noise, which keeps
the distribution over the old tokens as it was (Hewitt 2021, "Initializing new word embeddings for pretrained language
models"). New positions of GPT-2 start as copies of the old ones, over and over: the position at t is that at t mod T,
which keeps what is learned of places near each other (Beltagy et al. 2020, Longformer, arXiv 2004.05150, section 5).
Rotary positions have no rows: they reach as far as one counts. A shorter context forgets the last positions.
"""
from dataclasses import replace
from typing import Any

import numpy as np

from ..config import LlamaConfig, ModelConfig
from .params import Params


def with_vocabulary(model: Any, vocab_size: int) -> Any:
    """The model with rows for so many ids; itself where it has them."""
    old = model.config.vocab_size
    if vocab_size <= old:
        return model
    grown = remade(model, replace(model.config, vocab_size=vocab_size))
    for rows in (grown.params[name] for name in grown.rows_of_tokens):
        noise = np.random.default_rng(0).standard_normal((vocab_size - old, rows.shape[1]))
        rows[old:] = rows[:old].mean(0) + 0.1 * rows[:old].std(0) * noise
    return grown


def with_context(model: Any, block_size: int) -> Any:
    """The model for contexts of this length; itself if that is its own."""
    old = model.config.block_size
    if block_size == old:
        return model
    other = remade(model, config_for_context(model.config, block_size))
    if "wpe.weight" in other.params:
        other.params["wpe.weight"][:] = model.params["wpe.weight"][np.arange(block_size) % old]
    return other


def config_for_context(config: ModelConfig, block_size: int) -> ModelConfig:
    """The configuration with another context length. Scaled rotary frequencies stay as they are: where they follow from
    the context length, the old one is written down."""
    if isinstance(config, LlamaConfig) and dict(config.rope_scaling).get("rope_type") == "yarn":
        scaling = {"original_max_position_embeddings": config.block_size} | {
            key: value for key, value in config.rope_scaling if value is not None}
        config = replace(config, rope_scaling=tuple(sorted(scaling.items())))
    return replace(config, block_size=block_size)


def remade(model: Any, config: ModelConfig) -> Any:
    """A model of this configuration with the parameters of another, as far as their rows go."""
    params = Params(model.shapes(config), model.params.flat.dtype)
    for name, view in params.items():
        rows = model.params[name][:len(view)]
        view[:len(rows)] = rows
    return type(model)(config, ops=model.ops, params=params)
