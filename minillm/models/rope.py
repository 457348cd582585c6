"""The angles of rotary positions, and how a context is stretched beyond the one that a model was trained with.

    angle = t * theta^(-2 i / HS)            of pair i, from 0 to HS / 2 - 1, of the token at position t

The frequencies, which are the angles a token, may be changed:

    linear    all frequencies divided by `factor` (Chen et al. 2023, arXiv 2306.15595)
    llama3    only the slow ones: a wave longer than original / low_freq_factor is divided, one shorter than
              original / high_freq_factor stays, and between them the two are mixed (Llama 3.1, arXiv 2407.21783)
    yarn      the same idea by the number of turns within the original context, and cos and sin are made a little
              larger, which sharpens the softmax (Peng et al. 2023, arXiv 2309.00071, eq. 17 to 22)

op rope rotates by them.
"""
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import LlamaConfig

Array = np.ndarray


def rope_angles(config: LlamaConfig, positions: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """cos and sin of every pair of a head at these positions: (T,) int -> two arrays (T, HS / 2) of `dtype`."""
    frequencies, size = scaled_frequencies(config)
    angle = np.asarray(positions, np.float64)[:, None] * frequencies
    return (size * np.cos(angle)).astype(dtype), (size * np.sin(angle)).astype(dtype)


def scaled_frequencies(config: LlamaConfig) -> tuple[Array, float]:
    """(radians a token for each pair, what cos and sin are multiplied by). Raises ValueError for another scaling."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)
    scaling: dict[str, Any] = dict(config.rope_scaling)
    kind = scaling.get("rope_type", "default")
    if kind not in SCALINGS:
        raise ValueError(f"rope_type must be one of {', '.join(SCALINGS)}: got {kind!r}")
    try:
        return SCALINGS[kind](frequencies, scaling, config)
    except KeyError as missing:
        raise ValueError(f"rope_scaling of type {kind} needs {missing}") from None


def unscaled(frequencies: Array, scaling: dict, config: LlamaConfig) -> tuple[Array, float]:
    return frequencies, 1.0


def linear(frequencies: Array, scaling: dict, config: LlamaConfig) -> tuple[Array, float]:
    return frequencies / scaling["factor"], 1.0


def llama3(frequencies: Array, scaling: dict, config: LlamaConfig) -> tuple[Array, float]:
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)       # in the original context
    kept = np.clip((turns - low) / (high - low), 0, 1)                                      # how much of it is kept
    return kept * frequencies + (1 - kept) * frequencies / scaling["factor"], 1.0


def yarn(frequencies: Array, scaling: dict, config: LlamaConfig) -> tuple[Array, float]:
    original = scaling.get("original_max_position_embeddings") or config.block_size
    factor, half = scaling["factor"], len(frequencies)

    def pair_with(turns: float) -> float:
        """The index, not whole, of the pair that turns so often in the original context."""
        return half * math.log(original / (turns * 2 * math.pi)) / math.log(config.rope_theta)
    first, last = pair_with(scaling.get("beta_fast") or 32), pair_with(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    divided = np.clip((np.arange(half) - first) / max(last - first, 1e-3), 0, 1)
    return (1 - divided) * frequencies + divided * frequencies / factor, yarn_size(scaling, factor)


def yarn_size(scaling: dict, factor: float) -> float:
    """What cos and sin are multiplied by: 0.1 ln(factor) + 1, unless the file says otherwise."""
    def size(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return size(scaling["mscale"]) / size(scaling["mscale_all_dim"])
    return size(1)


SCALINGS = {"default": unscaled, "linear": linear, "llama3": llama3, "yarn": yarn}
