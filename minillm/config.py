"""Hyperparameters as two frozen dataclasses: the model's architecture, and its training.

They are read from TOML and from `--set name=value`; a key that does not exist, or a value of the wrong type or
range, is an error that names the key. There is nothing else to configure, and no global state.
"""
import dataclasses
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class GPTConfig:
    """Architecture of a GPT-2 (Radford et al. 2019). The defaults are the 124M model."""

    n_layer: int = 12           # transformer blocks
    n_head: int = 12            # attention heads per block; HS = n_embd / n_head
    n_embd: int = 768           # width of the residual stream, C
    block_size: int = 1024      # context length, in tokens
    vocab_size: int = 50257     # V
    dropout: float = 0.0        # probability of zeroing an activation in training
    layer_norm_epsilon: float = 1e-5
    activation: str = "gelu_new"        # of the MLP: gelu_new, the tanh form, gelu, the exact one, or relu
    n_inner: int = 0                    # width of the MLP; 0: 4 * n_embd
    scale_attn_weights: bool = True     # attention scores divided by sqrt(HS)
    scale_attn_by_inverse_layer_idx: bool = False       # and by the layer's number, from 1 on (Mistral's GPT-2 runs)
    tied: bool = True                   # is the output head the token embedding?

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
            check_field(name, getattr(self, name), int, lambda v: v >= 1, "an integer of at least 1")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd must be a multiple of n_head: got n_embd={self.n_embd}, n_head={self.n_head}")
        check_field("dropout", self.dropout, float, lambda v: 0 <= v < 1, "a number with 0 <= dropout < 1")
        check_field("layer_norm_epsilon", self.layer_norm_epsilon, float, lambda v: 0 < v < math.inf,
                    "a number above 0")
        check_field("activation", self.activation, str, lambda v: v in ("gelu_new", "gelu", "relu"),
                    "gelu_new, gelu or relu")
        check_field("n_inner", self.n_inner, int, lambda v: v >= 0, "an integer of at least 0")
        for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tied"):
            check_field(name, getattr(self, name), bool, lambda v: True, "true or false")

    @property
    def n_kv_head(self) -> int:
        """Heads of keys and values: one for each query head."""
        return self.n_head

    @property
    def head_dim(self) -> int:
        """HS, numbers a head."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """F, numbers between the two layers of the MLP."""
        return self.n_inner or 4 * self.n_embd

    def query_scale(self, layer: int) -> float:
        """What queries of a block are multiplied by, beside the 1 / sqrt(HS) that attention has in it."""
        return (1 if self.scale_attn_weights else math.sqrt(self.head_dim)) / (
            layer + 1 if self.scale_attn_by_inverse_layer_idx else 1)


@dataclass(frozen=True)
class LlamaConfig:
    """Architecture of Llama and its kin (models/llama.py). The defaults are a small Llama 2 of 110M parameters."""

    family: str = "llama"       # model_type of config.json: llama, mistral, qwen2, qwen3, olmo2, gemma, gemma2
    n_layer: int = 12           # transformer blocks
    n_head: int = 12            # query heads
    n_kv_head: int = 12         # heads of keys and values, each for n_head / n_kv_head query heads
    head_dim: int = 64          # HS, numbers a head: even, for rotary positions
    n_embd: int = 768           # width of the residual stream, C
    n_inner: int = 2048         # width of the MLP
    block_size: int = 1024      # context length, in tokens
    vocab_size: int = 32000     # V
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: tuple[tuple[str, Any], ...] = ()      # models/rope.py: ("rope_type", "llama3"), ("factor", 8.0), ...
    window: int = 0             # tokens that a query sees, itself among them; 0: all
    full_layers: tuple[int, ...] = ()           # with a window: the layers whose queries see all tokens nevertheless
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False       # RMSNorm of queries and keys, before they are rotated: of each head; OLMo 2: of all
    tied: bool = False          # is the output head the token embedding?
    query_size: float = 0.0     # Gemma 2: scores are divided by its square root; 0: by that of head_dim
    attention_cap: float = 0.0  # Gemma 2: soft-cap of the scores; 0: none
    logit_cap: float = 0.0      # Gemma 2: soft-cap of the logits; 0: none
    pad_token: int = -1         # its row of the embedding learns nothing from inputs, as transformers has it; -1: none
    dropout: float = 0.0        # there is none

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "n_inner", "block_size", "vocab_size"):
            check_field(name, getattr(self, name), int, lambda v: v >= 1, "an integer of at least 1")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head must divide n_head: got n_kv_head={self.n_kv_head}, n_head={self.n_head}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even: got {self.head_dim}")
        check_field("window", self.window, int, lambda v: v >= 0, "an integer of at least 0")
        check_field("pad_token", self.pad_token, int, lambda v: v >= -1, "an id, or -1 for none")
        for name in ("norm_eps", "rope_theta"):
            check_field(name, getattr(self, name), float, lambda v: 0 < v < math.inf, "a number above 0")
        check_field("full_layers", self.full_layers, tuple,
                    lambda v: all(type(i) is int and 0 <= i < self.n_layer for i in v),
                    f"a tuple of layers below {self.n_layer}")
        for name in ("query_size", "attention_cap", "logit_cap"):
            check_field(name, getattr(self, name), float, lambda v: 0 <= v < math.inf, "a number of at least 0")
        for name in ("qkv_bias", "o_bias", "mlp_bias", "qk_norm", "tied"):
            check_field(name, getattr(self, name), bool, lambda v: True, "true or false")
        check_field("dropout", self.dropout, float, lambda v: v == 0, "0: Llama has none")

    def window_of(self, layer: int) -> int:
        """How many tokens a query of this layer sees; 0: all."""
        return 0 if layer in self.full_layers else self.window


ModelConfig = GPTConfig | LlamaConfig


def of_depth(c: ModelConfig, n_layer: int) -> ModelConfig:
    """The same architecture with its first `n_layer` blocks alone."""
    if isinstance(c, LlamaConfig):
        return dataclasses.replace(c, n_layer=n_layer, full_layers=tuple(i for i in c.full_layers if i < n_layer))
    return dataclasses.replace(c, n_layer=n_layer)


@dataclass(frozen=True)
class TrainConfig:
    """Training. `batch_size` sequences of block_size tokens, `accumulate` times, make one optimizer step."""

    steps: int = 1000
    batch_size: int = 8         # sequences in a micro-batch, B
    accumulate: int = 1         # gradient accumulation: micro-batches per optimizer step
    lr: float = 6e-4            # peak learning rate, reached after the warm-up
    min_lr: float = 6e-5        # where the schedule ends
    warmup: int = 100           # steps of linear warm-up
    schedule: str = "cosine"    # or "wsd": warm-up, stable, decay (train/schedule.py)
    decay: float = 0.3          # of "wsd": the share of the steps, at their end, in which the rate falls
    optimizer: str = "adamw"    # or "muon": of the matrices in the blocks; AdamW of the rest (ops/optimizer/muon.py)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95      # of "muon"
    weight_decay: float = 0.1   # on matrices only
    ema: float = 0.0            # of the weights, such as 0.999: their mean is validated and saved; 0: the weights are
    clip: float = 1.0           # global gradient norm to clip at; 0 switches clipping off
    eval_every: int = 100       # steps between validations (0: only at the end)
    eval_batches: int = 0       # validation batches per evaluation; 0 means the whole split
    save_every: int = 200       # steps between resumable checkpoints (one is always written at the end)
    log_every: int = 10         # steps between rows of log.csv
    seed: int = 0
    backend: str = "auto"       # see kernels.select; "cpu/bf16": bf16 GEMMs, float32 master weights
    patience: float = 300.0     # seconds that a process waits for another, under mpiexec (train/parallel.py)
    recompute: bool = False     # make activations again in the backward: less memory, a third more time, the same bits

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every"):
            check_field(name, getattr(self, name), int, lambda v: v >= 1, "an integer of at least 1")
        for name in ("warmup", "eval_every", "eval_batches", "save_every", "seed"):
            check_field(name, getattr(self, name), int, lambda v: v >= 0, "an integer of at least 0")
        check_field("lr", self.lr, float, lambda v: 0 < v < math.inf, "a number above 0")
        for name in ("min_lr", "weight_decay", "clip"):
            check_field(name, getattr(self, name), float, lambda v: v >= 0, "a number of at least 0")
        for name in ("beta1", "beta2", "momentum", "ema"):
            check_field(name, getattr(self, name), float, lambda v: 0 <= v < 1, "a number in [0, 1)")
        check_field("patience", self.patience, float, lambda v: v > 0, "a number above 0")
        check_field("eps", self.eps, float, lambda v: 0 < v < math.inf, "a number above 0")
        check_field("optimizer", self.optimizer, str, lambda v: v in ("adamw", "muon"), "adamw or muon")
        check_field("schedule", self.schedule, str, lambda v: v in ("cosine", "wsd"), "cosine or wsd")
        check_field("decay", self.decay, float, lambda v: 0 <= v <= 1, "a number with 0 <= decay <= 1")
        check_field("backend", self.backend, str, bool, "the name of a backend")
        check_field("recompute", self.recompute, bool, lambda v: True, "true or false")

    def as_dict(self) -> dict:
        """Every setting, as a checkpoint records them."""
        return dataclasses.asdict(self)

    @classmethod
    def recorded(cls, settings: dict) -> "TrainConfig":
        """From what a checkpoint has recorded, which may have other settings besides."""
        return cls(**{name: value for name, value in settings.items() if name in names(cls)})


def check_counts(least: int = 1, **values: object) -> None:
    """Raise ValueError naming a value that is no integer of at least `least`."""
    for name, value in values.items():
        kind = "" if isinstance(value, int) else "an integer of "
        check_field(name, value, int, lambda v: v >= least, f"{kind}at least {least}")


def check_field(name: str, value: object, kind: type | tuple, valid: Callable, expected: str) -> None:
    """Raise ValueError naming the field unless `value` has the kind and passes `valid` (NaN passes nothing)."""
    kinds = (int, float) if kind is float else kind
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kinds) or not valid(value):
        raise ValueError(f"{name} must be {expected}: got {value!r}")


def load_toml(path: str | Path) -> tuple[dict, dict]:
    """Read `[model]` and `[train]` of a TOML file; returns two dicts. Raises ValueError naming file and key."""
    tables = toml_tables(path)
    for table, values in tables.items():
        if table not in (*SECTIONS, "data") or not isinstance(values, dict):
            raise ValueError(f"{path}: unknown entry {table!r}: expected the tables [model], [train] and [data]")
        for key in values if table != "data" else ():
            field_of(table, key, f"{path}: ")
    return tables.get("model", {}), tables.get("train", {})


def load_mix(path: str | Path) -> list | None:
    """`mix` of the table `[data]` of a TOML file: a list of weights; None if it has none. Raises ValueError."""
    data = toml_tables(path).get("data", {})
    if unknown := next((key for key in data if key != "mix"), None):
        raise ValueError(f"{path}: unknown key data.{unknown}: expected mix")
    if "mix" in data:
        check_field(f"{path}: data.mix", data["mix"], list, lambda v: v, "a list of weights, such as [0.7, 0.3]")
    return data.get("mix")


def toml_tables(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None


def parse_setting(setting: str) -> tuple[str, str, int | float | str | bool]:
    """'train.lr=3e-4' -> ('train', 'lr', 0.0003). `model.` and `optim.` work alike; a bare name is found in either.

    Of the model the settings of every family are known; which of them belong together, models/load.py checks.
    """
    name, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"--set {setting}: expected NAME=VALUE, for example train.lr=3e-4")
    table, _, key = name.strip().rpartition(".")
    table = {"optim": "train", "": "model" if key in fields("model") else "train"}.get(table, table)
    kind: Any = field_of(table, key).type
    if kind not in (int, float, str, bool):
        raise ValueError(f"--set {setting}: {key} is a table: write it into a TOML file")
    try:
        return table, key, {"true": True, "false": False}[text.strip().lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"--set {setting}: {key} must be of type {kind.__name__}") from None


def field_of(table: str, key: str, where: str = "") -> dataclasses.Field:
    """The dataclass field, or a ValueError that lists what there is."""
    if table not in SECTIONS:
        raise ValueError(f"{where}unknown table {table!r}: expected one of {', '.join(SECTIONS)}")
    known = fields(table)
    if key not in known:
        raise ValueError(f"{where}unknown key {table}.{key}: expected one of {', '.join(known)}")
    return known[key]


def fields(table: str) -> dict[str, dataclasses.Field]:
    """{key: field} of a table; of the model, those of GPT-2 first."""
    return {field.name: field for config in reversed(SECTIONS[table]) for field in dataclasses.fields(config)}


def names(config: type) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def check_heeded(command: str, table: str, key: str, where: str = "") -> None:
    """Raise ValueError for a setting that a command would not heed, saying what to use instead."""
    if instead := INSTEAD.get((command, f"{table}.{key}")):
        raise ValueError(f"{where}{command} does not read {table}.{key}: use {instead}")


SECTIONS: dict[str, tuple] = {"model": (GPTConfig, LlamaConfig), "train": (TrainConfig,)}
EVALUATED = "train.eval_every, for a validation always reads all that is held out"
INSTEAD = {                  # the settings that a command does not read, and what does their work; it reads all others
    ("train", "model.vocab_size"): "--vocab-size, or a --tokenizer, whose size it is",
    ("dpo", "train.batch_size"): "--pairs",
    ("dpo", "train.eval_batches"): EVALUATED,
    ("grpo", "train.batch_size"): "--prompts and --group",
    ("grpo", "train.eval_batches"): EVALUATED,
}
