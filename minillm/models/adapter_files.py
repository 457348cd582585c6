"""The tensors of an adapter as the PEFT library writes them: adapter_model.safetensors, by the side of
adapter_config.json (peft_config.py).

    base_model.model.transformer.h.0.attn.c_attn.lora_A.weight    (r, I)        its partner lora_B  (J, r)
    base_model.model.transformer.wte.weight                       whole: of modules_to_save, or a grown vocabulary's
"""
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.atomic import AnyPath
from ..storage.safetensors import read_safetensors
from .params import Params, Shapes
from .peft_config import Placed
from .pretrained import HEAD

CONFIG, WEIGHTS, FOLDER = "adapter_config.json", "adapter_model.safetensors", "adapter"
PEFT, PICKLE = "base_model.model.", "adapter_model.bin"          # what PEFT puts before a name; its older files
Tensors = dict[str, np.ndarray]


def peft_name(key: str, prefix: str) -> str:
    """h.0.attn.c_attn.a -> base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"""
    return f"{PEFT}{prefix}{key[:-1]}lora_{key[-1].upper()}.weight"


def whole_name(name: str, prefix: str) -> str:
    """wte.weight -> base_model.model.transformer.wte.weight; the head stands outside of the transformer."""
    return f"{PEFT}{'' if name == HEAD else prefix}{name}"


def adapter_folder(directory: AnyPath) -> Path:
    """The folder itself, or the one within a run of ours. Raises FileNotFoundError where there is no adapter."""
    directory = Path(directory)
    for folder in (directory, directory / FOLDER):
        if (folder / CONFIG).exists():
            return folder
    raise FileNotFoundError(f"{directory}: there is no adapter: expected {CONFIG} and {WEIGHTS}, as PEFT writes them")


def read_tensors(directory: AnyPath) -> Tensors:
    """The tensors of a folder's adapter. Raises ValueError for one that is not of finite floating point numbers."""
    path = Path(directory) / WEIGHTS
    if not path.exists() and (path.parent / PICKLE).exists():
        raise FileNotFoundError(f"{path}: no such file; {PICKLE} is a pickle, which is not read here, for it may run "
                                "code: save the adapter again with PEFT's safe_serialization=True")
    tensors, _ = read_safetensors(path)
    for name, array in tensors.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{path}: tensor {name!r} must hold finite floating point numbers: got {array.dtype}")
    return tensors


def update_shapes(base: Any, placed: dict[str, Placed]) -> Shapes:
    """{PEFT's name: shape} of the updates of some layers."""
    shapes: Shapes = {}
    for name, (rank, _) in placed.items():
        inputs, outputs = base.params[f"{name}.weight"].shape[::-1 if base.layers.out_first else 1]
        shapes |= {peft_name(f"{name}.a", base.layers.prefix): (rank, inputs),
                   peft_name(f"{name}.b", base.layers.prefix): (outputs, rank)}
    return shapes


def check_tensors(tensors: Tensors, wanted: Shapes, directory: AnyPath, ranks: str = "its rank") -> None:
    """Exactly the tensors that are wanted. Raises ValueError naming the first that is not. ranks: where they stand."""
    for name in [*wanted, *tensors]:
        found = tensors[name].shape if name in tensors else None
        if found == wanted.get(name):
            continue
        what = (f"is missing: expected shape {wanted[name]}" if found is None else
                f"has shape {found}, but the base model has nothing there that is adapted" if name not in wanted else
                f"has shape {found}, but the base model and {ranks} ask for {wanted[name]}")
        raise ValueError(f"{directory} holds a different adapter than fits here: tensor {name!r} {what}")


# ---- parameters that an adapter brings whole ----

def with_whole(base: Any, tensors: Tensors, saved: list[str], directory: Path) -> tuple[Any, tuple[str, ...]]:
    """The base with the parameters that an adapter's file holds whole, in a copy, and their names. saved: PEFT's
    modules_to_save. Raises ValueError naming one that does not fit."""
    given = {name: tensors[key] for name in dict.fromkeys((*base.params, HEAD))
             if (key := whole_name(name, base.layers.prefix)) in tensors}
    for module in saved:
        if not any(in_module(name, module) for name in given):
            raise ValueError(f"{directory}: modules_to_save = {module!r} is nothing that both the base model and the "
                             "adapter's file hold")
    if not given:
        return base, ()
    values = with_head(base, given, saved)
    model = shaped(base, values)
    for name, view in model.params.items():
        if values[name].shape != view.shape:
            raise ValueError(f"{directory} holds a different adapter than fits here: tensor {name!r} has shape "
                             f"{values[name].shape}, but the base model with {model.config.vocab_size} tokens "
                             f"{view.shape}")
        view[:] = values[name]
    return model, tuple(given)


def in_module(name: str, module: str) -> bool:
    return f".{module}." in f".{name}"


def with_head(base: Any, given: Tensors, saved: list[str]) -> Tensors:
    """All parameters, always with a head. PEFT replaces an embedding of modules_to_save alone: a head that was tied to
    it keeps the old weights. One that was saved because the vocabulary grew is still the head, too."""
    embedding = base.rows_of_tokens[0]
    apart = any(in_module(embedding, module) for module in saved)
    tied_head = base.params[embedding] if apart else given.get(embedding, base.params[embedding])
    return {HEAD: tied_head, **base.params, **given}


def shaped(base: Any, values: Tensors) -> Any:
    """A model of the base's kind, its weights unset, for the rows of an embedding and a head, which are tied only if
    they are the same."""
    embedding, head = values[base.rows_of_tokens[0]], values[HEAD]
    config = type(base.config)(**vars(base.config) | {"vocab_size": len(embedding),
                                                      "tied": base.config.tied and np.array_equal(embedding, head)})
    return type(base)(config, ops=base.ops, params=Params(base.shapes(config), base.params.flat.dtype))


def whole_tensors(base: Any, names: tuple[str, ...]) -> Tensors:
    """{PEFT's name: array} of what with_whole took."""
    return {whole_name(name, base.layers.prefix):
            base.params[name if name in base.params else base.rows_of_tokens[0]] for name in names}
