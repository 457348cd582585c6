"""Low-rank adaptation (LoRA): the model is frozen, and some of its weights get a trainable low-rank update.

The model's code does not change: an adapted weight is of the type `Adapted`, by which the ops know it (weights.py).
`LoraModel` has what the training loop asks of a model (params, losses, backward, save_pretrained, load_weights), but
its params are the adapters alone: so the optimizer has no moments for the rest, and the base's weights cannot change
by a single bit.

Files are those of the PEFT library: adapter_config.json and adapter_model.safetensors, with its names and layouts. They
lie in the run's folder adapter/, apart from the merged model: beside it, transformers would put the adapter on top
once more.
Source: Hu et al. 2021 (arXiv 2106.09685).
"""
import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..kernels.select import Ops
from ..ops.bfloat16 import bfloat16_bits
from ..storage.atomic import AnyPath, write_json
from ..storage.safetensors import write_safetensors
from ..tokenizer.roles import EndOfText
from .adapter_files import (
    CONFIG,
    FOLDER,
    WEIGHTS,
    Tensors,
    adapter_folder,
    check_tensors,
    peft_name,
    read_tensors,
    update_shapes,
    whole_tensors,
    with_whole,
)
from .kv_cache import KVCache
from .params import Params, Shapes
from .peft_config import Placed, check_kind, check_settings, placed_layers
from .pretrained import read_json


class Layers(NamedTuple):
    """The linear layers of a family: what can be adapted in each block, where, and how it is stored."""

    targets: tuple[str, ...]                # in reading order
    blocks: str                             # the blocks are BLOCKS.0, BLOCKS.1, ...
    prefix: str                             # what transformers puts before a name
    out_first: bool                         # weights are (J, I), as PEFT's a (r, I) and b (J, r), not (I, J)


GPT2_LAYERS = Layers(("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"), "h", "transformer.",
                     out_first=False)
LLAMA_LAYERS = Layers(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                       "mlp.up_proj", "mlp.down_proj"), "model.layers", "", out_first=True)
TARGETS = GPT2_LAYERS.targets


class Adapted(NamedTuple):
    """A frozen weight (I, J) and its update scale * a @ b: what ops/lora_linear.py takes. Of a family whose weights
    are (J, I), all three are transposed."""

    frozen: np.ndarray
    a: np.ndarray                           # (I, r)
    b: np.ndarray                           # (r, J)
    scale: float
    dropout: float
    key: tuple                              # of the dropout's mask


class Frozen(dict):
    """The parameters of a base by their names; `bits`: the same as the GEMMs of training read them (params.matrix)."""

    bits: dict | None = None


class LoraModel:
    """A model whose `targets` have adapters of `rank`; scale = alpha / rank. dropout: on the way into an adapter."""

    takes_weight_copy = False               # of what learns, the adapters
    recompute = False                       # as of the base

    def __init__(self, base: Any, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] | None = None,
                 dropout: float = 0.0, seed: int = 0, name: str = "", placed: dict[str, Placed] | None = None) -> None:
        """base: GPT or Llama, never written. targets: ends of the layers' names (None: all linear layers of a block).
        name: where the base came from, for adapter_config.json. placed: {layer: (rank, scale)} where they differ, in
        place of rank, alpha and targets. Raises ValueError."""
        targets = base.layers.targets if targets is None else full_names(targets, base.layers, "targets")
        check_settings(rank, alpha, dropout)
        self.base, self.rank, self.alpha, self.targets, self.dropout = base, rank, alpha, tuple(targets), dropout
        self.name, self.config, self.ops, self.layers = name, base.config, base.ops, base.layers
        self.placed = placed or dict.fromkeys(layer_names(base, targets), Placed(rank, alpha / rank))
        self.settings: dict = {}                # of the adapter_config.json that it was read from
        self.whole: tuple[str, ...] = ()        # the base's parameters that came with it
        self.bits: dict[str, np.ndarray] | None = None
        self.params = Params(adapter_shapes(base, self.placed), base.params.flat.dtype)
        for place, (key, view) in enumerate(self.params.items()):          # b starts at zero: nothing changes at first
            if key.endswith(".a"):
                inputs = view.shape[self.layers.out_first]
                view[:] = np.random.default_rng((seed, place)).standard_normal(view.shape) / math.sqrt(inputs)

    def on(self, ops: Ops, params: Any = None) -> "LoraModel":
        """The same adapters on a base that runs on other ops; with its own parameters, or others."""
        other = copy(self)
        other.base, other.ops = self.base.on(ops, params), ops
        other.bits = self.bits if params is None else None
        return other

    def loss_and_grads(self, *args: Any, **settings: Any) -> tuple[float, Params]:
        """As GPT.loss_and_grads; grads: Params of the adapters."""
        return type(self.base).loss_and_grads(self, *args, **settings)

    def losses(self, tokens: np.ndarray, targets: np.ndarray, ignore_index: int = -1, key: tuple | None = None,
               lengths: list[int] | None = None) -> tuple[np.ndarray, list]:
        """As GPT.losses, with the adapters; key also draws their dropout."""
        return self.model(key).losses(tokens, targets, ignore_index, key, lengths)

    def backward(self, dlosses: np.ndarray, caches: list, grads: Params | None = None) -> Params:
        """As GPT.backward; grads: Params of the adapters."""
        grads = grads if grads is not None else self.params.zeros_like()
        self.base.backward(dlosses, caches, Routed(grads))
        return grads

    def new_cache(self, batch_size: int) -> KVCache:
        """As GPT.new_cache."""
        return self.base.new_cache(batch_size)

    def decode(self, tokens: np.ndarray, cache: KVCache, rows: Any = None, last: bool = False) -> np.ndarray:
        """As GPT.decode."""
        return self.model().decode(tokens, cache, rows, last)

    def model(self, key: tuple | None = None) -> Any:
        """The base with Adapted weights; key (seed, step, micro) for their dropout, None for none."""
        params, count = dict(self.base.params.items()), len(self.placed)
        for number, (name, (_, scale)) in enumerate(self.placed.items()):
            a, b, frozen = self.params[f"{name}.a"], self.params[f"{name}.b"], params[f"{name}.weight"]
            drop = (self.dropout, (key[0], key[1], 2 ** 32 + key[2] * count + number)) if key else (0.0, (0, 0, 0))
            params[f"{name}.weight"] = Adapted(frozen, a, b, scale, *drop)
        frozen = Frozen(params)
        if self.base.takes_weight_copy and self.base.params.flat.dtype == np.float32:
            frozen.bits = self.in_bits(params)
        model = self.base.on(self.base.ops, frozen)
        model.recompute = self.recompute
        return model

    def in_bits(self, params: dict) -> dict:
        """The same parameters with the matrices as a copy in bfloat16, made once: the frozen weights do not change.

        From now on these are read-only, or a stale copy would be used in silence (as with AdamW.keep_bits)."""
        if self.bits is None:
            self.base.params.freeze()
            self.bits = {name: bfloat16_bits(view) for name, view in self.base.params.items() if view.ndim == 2}
        return {name: value._replace(frozen=self.bits[name]) if isinstance(value, Adapted) else
                self.bits.get(name, value) for name, value in params.items()}

    def merged(self) -> Any:
        """A model of its own with weight + scale * a @ b in place of every adapted weight."""
        params = self.base.params.astype(self.base.params.flat.dtype)
        for key, (_, scale) in self.placed.items():
            parts = [self.params[f"{key}.{part}"].astype(np.float64) for part in "ab"]
            delta = parts[1] @ parts[0] if self.layers.out_first else parts[0] @ parts[1]
            params[f"{key}.weight"][:] = params[f"{key}.weight"] + scale * delta
        return self.base.on(self.ops, params)

    def save_pretrained(self, directory: AnyPath, eot_token: EndOfText = None) -> None:
        """Write the merged model, and the adapter in PEFT's form into a folder in it."""
        self.merged().save_pretrained(directory, eot_token)
        save_adapter(self, Path(directory) / FOLDER)

    def load_weights(self, directory: AnyPath) -> None:
        """Take the adapter that save_pretrained wrote, in place. Raises ValueError if it is of another shape."""
        self.take(Path(directory) / FOLDER)

    def take(self, directory: AnyPath) -> None:
        """The same for a folder with nothing but an adapter."""
        tensors, wanted = read_tensors(directory), peft_tensors(self)
        check_tensors(tensors, {name: array.shape for name, array in wanted.items()}, directory)
        for key, view in self.params.items():
            view[:] = in_pefts_layout(self, tensors[peft_name(key, self.layers.prefix)])


def layer_names(base: Any, targets: Sequence[str]) -> list[str]:
    """h.0.attn.c_attn, ... in reading order."""
    return [f"{base.layers.blocks}.{i}.{target}" for i in range(base.config.n_layer)
            for target in base.layers.targets if target in targets]


def adapter_shapes(base: Any, placed: dict[str, Placed]) -> dict[str, tuple[int, ...]]:
    """{"h.0.attn.c_attn.a": (I, r), "h.0.attn.c_attn.b": (r, J), ...}; (r, I) and (J, r) where weights are (J, I)."""
    shapes: Shapes = {}
    for name, (rank, _) in placed.items():
        first, last = base.params[f"{name}.weight"].shape
        ends = {"b": (first, rank), "a": (rank, last)} if base.layers.out_first else {"a": (first, rank),
                                                                                      "b": (rank, last)}
        shapes |= {f"{name}.{part}": ends[part] for part in "ab"}
    return shapes


class Routed:
    """Where the model's backward adds what: for an Adapted weight its adapter's pair (da, db); of everything frozen no
    gradient is wanted, so it is not computed."""

    def __init__(self, grads: Params) -> None:
        self.grads = grads

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        key = name.removesuffix(".weight")
        return (self.grads[f"{key}.a"], self.grads[f"{key}.b"]) if f"{key}.a" in self.grads.views else None


# ---- PEFT's files ----

def peft_tensors(adapter: LoraModel) -> Tensors:
    """{PEFT's name: array (r, I) or (J, r)}, and the parameters that came with the adapter."""
    updates = {peft_name(key, adapter.layers.prefix): in_pefts_layout(adapter, view)
               for key, view in adapter.params.items()}
    return updates | whole_tensors(adapter.base, adapter.whole)


def in_pefts_layout(adapter: LoraModel, array: np.ndarray) -> np.ndarray:
    """The transpose, where our matrices are (I, r) and (r, J); and back."""
    return array if adapter.layers.out_first else np.ascontiguousarray(array.T)


def save_adapter(adapter: LoraModel, directory: AnyPath) -> None:
    """Write adapter_config.json and adapter_model.safetensors."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / WEIGHTS, peft_tensors(adapter), {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": adapter.name, "r": adapter.rank,
              "lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout, "target_modules": list(adapter.targets),
              "fan_in_fan_out": not adapter.layers.out_first, "bias": "none", "inference_mode": True}
    write_json(directory / CONFIG, config | adapter.settings, indent=2)


def load_adapter(base: Any, directory: AnyPath) -> "LoraModel":
    """The adapter of a directory on `base`, GPT or Llama: a folder that PEFT or we wrote, or a run of ours with one.

    What the file holds whole (modules_to_save, the embedding of a vocabulary that grew) takes the place of the base's
    parameters, in a copy. Raises ValueError for an adapter of a kind that is not computed, or for another base.
    """
    if not isinstance(base.params, Params):
        raise ValueError(f"{directory}: an adapter needs a base with plain weights, not a quantized one")
    directory = adapter_folder(directory)
    path, tensors = directory / CONFIG, read_tensors(directory)
    config = read_json(path)
    check_kind(config, path)
    try:
        placed = placed_layers(config, layer_names(base, base.layers.targets), base.layers.prefix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    base, whole = with_whole(base, tensors, config.get("modules_to_save") or [], directory)
    wanted = update_shapes(base, placed) | {name: array.shape for name, array in whole_tensors(base, whole).items()}
    check_tensors(tensors, wanted, directory, f"r = {config['r']} (rank_pattern)")         # before there is room made
    targets = [target for target in base.layers.targets if any(name.endswith(f".{target}") for name in placed)]
    rank, scale = next(iter(placed.values()))
    adapter = LoraModel(base, rank, rank * scale, targets, config.get("lora_dropout", 0.0),
                        name=config.get("base_model_name_or_path") or "", placed=placed)
    adapter.settings, adapter.whole = config, whole
    adapter.take(directory)
    return adapter


def full_names(modules: Sequence[str] | str, layers: Layers, name: str = "target_modules") -> list[str]:
    """PEFT's target_modules, of which each is the end of a name, as ours: c_attn is attn.c_attn."""
    modules = [modules] if isinstance(modules, str) else modules
    if not isinstance(modules, (list, tuple)):
        raise ValueError(f"{name} must be a list of names: got {modules!r}")
    for module in modules or ["none"]:
        if not any(f".{target}".endswith(f".{module}") for target in layers.targets):
            raise ValueError(f"{name} must be some of {', '.join(layers.targets)}: got {module}")
    return [target for target in layers.targets if any(f".{target}".endswith(f".{module}") for module in modules)]
