"""What `minillm doctor` looks at: a run directory, read and never written, and the measurements its checks share."""
import lzma
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..data.shards.format import SIDECAR, open_shards
from ..data.shards.loader import Loader, sequential
from ..generation.decode import generate
from ..generation.text import first_token
from ..models.load import load_model
from ..models.pretrained import CONFIG, read_json
from ..ops.optimizer.muon import RMS
from ..tokenizer import Tokenizer
from ..train.checkpoint import ORIGIN, STATE, load_training
from ..train.log import FAILURE, GRADIENTS, layer_sizes, read_log
from ..train.optim import AdamW, clip_scale, global_norm

Array = np.ndarray
TOKENS = 2048                # that a measurement reads, at least one block
COPY = 120                   # bytes, about: text that agrees in so many is a copy
MOST = 2 ** 21               # tokens in which copies are looked for
SPOKEN = 64                  # tokens of a sample


class Patient:
    """A run directory: `rows` of its log, `settings`, `failure` (a dict, or empty), and what a check asks for."""

    def __init__(self, run: str | Path, data: str | Path | None = None):
        """data: the folder of its shards, if neither the run nor its origin has them.

        Raises FileNotFoundError for no run directory, ValueError for files that are damaged.
        """
        self.run, self.data = Path(run), data
        if not any((self.run / name).exists() for name in ("log.csv", "last", FAILURE)):
            raise FileNotFoundError(f"{run}: no run directory of minillm train: no log.csv, last/ or {FAILURE} in it")
        self.rows, self.gradient_rows = read_log(run), read_log(run, GRADIENTS)
        self.failure = read_json(self.run / FAILURE) if (self.run / FAILURE).exists() else {}
        self.m: Any = None
        self.v: Any = None
        self.state: dict = {}
        if (self.run / "last" / STATE).exists():
            self.m, self.v, self.state = load_training(self.run / "last")
        self.settings = dict(self.state.get("settings") or self.failure.get("settings") or {})
        self.config = TrainConfig.recorded(self.settings)
        if (self.run / "last" / CONFIG).exists():
            self.settings["vocab_size"] = read_json(self.run / "last" / CONFIG)["vocab_size"]

    @cached_property
    def model(self) -> Any:
        """Of the last checkpoint."""
        return load_model(self.run / "last")

    @cached_property
    def best(self) -> Any:
        return load_model(self.run) if (self.run / CONFIG).exists() else self.model

    @cached_property
    def shards(self) -> Any:
        """The Shards it was pretrained on, None where they are gone."""
        if self.data:
            return open_shards(self.data)
        places = [self.run / "data", Path(self.origin.get("data") or self.run)] * self.pretrained
        return next((open_shards(place) for place in places if (place / SIDECAR).exists()), None)

    @cached_property
    def origin(self) -> dict:
        return read_json(self.run / ORIGIN) if (self.run / ORIGIN).exists() else {}

    @property
    def pretrained(self) -> bool:
        """From a fresh model, on plain text: a tuned one learns from chosen tokens of other data."""
        return not self.origin.get("base") and all("val_bpb" in row or "val_loss" not in row for row in self.rows)

    def blocks(self, seed: int = 1) -> tuple[Array, Array]:
        """Random training text: tokens and targets (B, T)."""
        size = self.model.config.block_size
        return Loader(self.shards.train, size, max(1, TOKENS // size), seed).batch(0)

    def held_out(self) -> tuple[Array, Array]:
        """Validation text: tokens and targets (B, T)."""
        size = self.model.config.block_size
        return next(sequential(self.shards.val.arrays, size, max(1, TOKENS // size), 1))

    @cached_property
    def losses(self) -> dict[str, float]:
        """Nats per token of the last model on random training text, on validation text, and where the target is the
        token itself."""
        tokens, targets = self.held_out()
        return {"train": mean_loss(self.model, *self.blocks()), "val": mean_loss(self.model, tokens, targets),
                "copy": mean_loss(self.model, tokens, np.where(targets < 0, -1, tokens))}

    @cached_property
    def loss_of_best(self) -> float:
        """Nats per token of the best model on validation text."""
        return mean_loss(self.best, *self.held_out())

    @cached_property
    def gradients(self) -> list[tuple[str, dict[str, float]]]:
        """[(when, {layer: gradient norm})] of fresh, best and last model on the same training text."""
        fresh = type(self.model)(self.model.config, self.config.seed, ops=self.model.ops)
        tokens, targets = self.blocks()
        return [(when, layer_sizes(model.loss_and_grads(tokens, targets)[1]))
                for when, model in (("at the start", fresh), ("best", self.best), ("last", self.model))]

    @cached_property
    def update_ratios(self) -> dict[str, float]:
        """{layer: length of the last update over that of the weights}, at the highest rate that was used."""
        steps, c = max(1, self.state["step"]), self.config
        updates = self.m.zeros_like()
        updates.flat[:] = RMS                                       # Muon's, which keeps no second moment
        for name, v in self.v.items():                              # AdamW's
            m, v = self.m[name] / (1 - c.beta1 ** steps), v / (1 - c.beta2 ** steps)
            updates[name][...] = m / (np.sqrt(v) + c.eps)
        weights = layer_sizes(self.model.params)
        return {name: self.rate * norm / max(weights[name], 1e-30) for name, norm in layer_sizes(updates).items()}

    @cached_property
    def rate(self) -> float:
        """The highest learning rate that was used."""
        return max((row["lr"] for row in self.rows if "lr" in row), default=self.config.lr)

    @cached_property
    def dead_units(self) -> list[float]:
        """For each layer the share of its units that no token of the validation text brings above where their
        function is nearly 0: GELU at -3, the gate of a Llama's SwiGLU at -8."""
        highest: list[Array] = []

        def watched(x: Array, fc_weight: Array, fc_bias: Array, *rest: Any) -> tuple[Array, Any]:
            highest.append((x.reshape(-1, x.shape[-1]) @ fc_weight + fc_bias).max(0))
            return self.model.ops.mlp_forward(x, fc_weight, fc_bias, *rest)

        def watched_gate(gate: Array, up: Array) -> tuple[Array, Any]:
            highest.append(gate.reshape(-1, gate.shape[-1]).max(0))
            return self.model.ops.swiglu_forward(gate, up)

        self.model.on(self.model.ops._replace(mlp_forward=watched, swiglu_forward=watched_gate)).losses(
            *self.held_out())
        return [float((top < (-3 if "mlp" in self.model.runs_on else -8)).mean()) for top in highest]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_pretrained(self.run)

    def samples(self, temperature: float, count: int) -> list[list[int]]:
        """Texts of SPOKEN tokens that the best model writes."""
        begin = [first_token(self.tokenizer)]
        return [generate(self.best, begin, SPOKEN, temperature, seed=seed)[1:] for seed in range(count)]

    @cached_property
    def streams(self) -> tuple[Array, Array]:
        """The first tokens of both splits, as one array each."""
        train, val = ([np.asarray(array[:MOST], np.uint64) for array in split.arrays]
                      for split in (self.shards.train, self.shards.val))
        return np.concatenate(train)[:MOST], np.concatenate(val)[:MOST]

    @property
    def window(self) -> int:
        """The tokens of a stretch of COPY bytes, at least 16."""
        return max(16, round(COPY * self.shards.train.tokens / max(1, self.shards.train.bytes)))

    @cached_property
    def compressed(self) -> float:
        """Bits per byte of lzma on the validation text, which may read a megabyte of the training text first."""
        train, val = (self.tokenizer.decode_bytes(stream[:2 ** 18].astype(int).tolist()) for stream in self.streams)
        return 8 * (len(lzma.compress(train + val)) - len(lzma.compress(train))) / len(val)

    def range_test(self, rates: list[float], steps: int = 20, tokens: int = 512) -> dict[float, float]:
        """{rate: loss on the last batches} of short trainings from fresh models, in memory."""
        return {rate: self.short_training(rate, steps, tokens) for rate in rates}

    def short_training(self, rate: float, steps: int, tokens: int) -> float:
        model = type(self.model)(self.model.config, self.config.seed, ops=self.model.ops)
        optimizer = AdamW(model.params, rate, ops=model.ops)
        size, losses = model.config.block_size, []
        loader = Loader(self.shards.train, size, max(1, tokens // size), self.config.seed)
        with np.errstate(all="ignore"):
            for step in range(steps):
                loss, grads = model.loss_and_grads(*loader.batch(step))
                losses.append(loss if np.isfinite(loss) else np.inf)
                optimizer.step(grads, rate * min(1, (step + 1) / 5), clip_scale(global_norm(grads, model.ops), 1.0))
        return float(np.mean(losses[-5:]))


def mean_loss(model: Any, tokens: Array, targets: Array) -> float:
    return float(model.losses(tokens, targets)[0].sum(dtype=np.float64)) / max(1, int((targets != -1).sum()))


def window_hashes(ids: Array, size: int) -> Array:
    """A number for each stretch of `size` tokens: a polynomial in uint64, which wraps. Stretches of few kinds of
    tokens, such as padding, are left out."""
    if len(ids) < size:
        return np.zeros(0, np.uint64)
    count, found = len(ids) - size + 1, np.zeros(len(ids) - size + 1, np.uint64)
    changes = np.concatenate([[0], np.cumsum(ids[1:] != ids[:-1])])
    for i in range(size):
        found = found * np.uint64(0x9E3779B97F4A7C15) + ids[i:i + count] + np.uint64(1)
    return found[changes[size - 1:] - changes[:count] >= size // 2]


def repeated(ids: list[int], n: int = 4) -> float:
    """The share of a text's n-grams that occurred before in it."""
    grams = [tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest_repeat(ids: list[int]) -> int:
    """The length of the longest stretch of tokens that occurs twice."""
    length = 0
    while repeated(ids, length + 1) > 0:
        length += 1
    return length
