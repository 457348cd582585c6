"""The path: every exercise after those it needs."""
import re
from importlib import import_module
from pathlib import Path

from .exercise import Exercise

PATH = (
    "linear_forward", "linear_backward", "gelu", "residual", "embedding", "softmax", "cross_entropy",
    "layernorm_forward", "layernorm_backward", "residual_layernorm", "dropout", "mlp", "attention_forward",
    "attention_backward", "online_softmax_forward", "online_softmax_backward", "block_forward", "block_backward",
    "adamw", "clipping", "schedule", "accumulation",
    "kv_cache", "temperature", "top_p", "speculative",
    "bpe_merge", "bpe_training", "bpe_encoding", "bits_per_byte", "bootstrap", "minhash", "lsh",
    "lora", "dpo", "grpo_advantage", "grpo", "distillation",
    "int8", "layernorm_c", "gelu_cuda", "softmax_cuda", "linear_cuda",
)


def exercises() -> list[Exercise]:
    """All of the path, in its order."""
    return [exercise_called(name) for name in PATH]


def exercise_called(name: str) -> Exercise:
    """The exercise of this name; ValueError for an unknown one."""
    if name not in PATH:
        raise ValueError(f"NAME must be an exercise ({', '.join(PATH)}): got {name!r}")
    return import_module(f".exercises.{name}", __package__).EXERCISE


def exercise_of(path: Path) -> Exercise:
    """Which exercise a file is for: its first line says so; else its name does, as in anna_softmax.py."""
    with open(path, encoding="utf-8", errors="replace") as file:
        said = re.search(r"Exercise (\w+)\.", file.read(2000))
    called = max((name for name in PATH if name in path.stem), key=len, default="")
    name = said[1] if said and said[1] in PATH else called
    if not name:
        raise ValueError(f"FILE must begin with the line of its template, 'Exercise NAME.', or be called after its "
                         f"exercise: got {path.name}")
    return exercise_called(name)
