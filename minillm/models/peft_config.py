"""adapter_config.json of the PEFT library: which layers have a low-rank update, of which rank, at which scale.

Names are matched as PEFT does it (Mangrulkar et al. 2022, github.com/huggingface/peft):

    target_modules       a list of names or ends of names; a regular expression of a whole name; "all-linear"
    layers_to_transform  only in these blocks, whose number follows one of layers_pattern in a name
    exclude_modules      not these, given as target_modules are; nor what is in modules_to_save, which is stored whole
    rank_pattern         {regular expression of the end of a name: rank}, in place of r
    alpha_pattern        the same for lora_alpha
    use_rslora           scale alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732), not alpha / r

What would change the result in another way is refused by its name.
"""
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex

from ..config import check_counts, check_field

NEEDED = {"peft_type": ("LORA",), "bias": ("none",),
          "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva", None)}       # others change the base, too
READ = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "base_model_name_or_path", "rank_pattern",
        "alpha_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"}
MEANINGLESS = {"task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "fan_in_fan_out",
               "megatron_core", "qalora_group_size", "eva_config"}          # unless something else is set, too
SECONDS = 1.0                           # for a regular expression; one that takes longer was made to


class Placed(NamedTuple):
    """A layer's low-rank update."""

    rank: int
    scale: float


def check_settings(rank: int, alpha: float, dropout: float) -> None:
    check_counts(rank=rank)
    check_field("alpha", alpha, float, lambda v: 0 < v < math.inf, "above 0")
    check_field("dropout", dropout, float, lambda v: 0 <= v < 1, "a number with 0 <= dropout < 1")


def check_kind(config: dict, path: Path) -> None:
    """Raise ValueError naming a setting of adapter_config.json that would change what the adapter computes."""
    if missing := sorted({"r", "lora_alpha", "target_modules"} - config.keys()):
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    for key, allowed in NEEDED.items():
        if config.get(key) not in allowed:
            raise ValueError(f"{path}: {key} must be {allowed[0]!r}: got {config.get(key)!r}")
    for key in config.keys() - READ - NEEDED.keys() - MEANINGLESS:
        if config[key]:
            raise ValueError(f"{path}: {key} = {config[key]!r} is not supported")


def placed_layers(config: dict, names: Sequence[str], prefix: str) -> dict[str, Placed]:
    """{name: Placed} of the linear layers that have an update, of all `names`; prefix: what transformers puts before
    them. Raises ValueError naming a setting of a wrong form."""
    check_settings(config["r"], config["lora_alpha"], config.get("lora_dropout", 0.0))
    if isinstance(config["target_modules"], str) and config.get("layers_to_transform") is not None:
        raise ValueError("layers_to_transform is for a list of target_modules, not for a regular expression")
    placed = {}
    for name in names:
        key = prefix + name
        if is_target(config, key):
            rank = of_pattern(config, "rank_pattern", key, config["r"])
            alpha = of_pattern(config, "alpha_pattern", key, config["lora_alpha"])
            check_settings(rank, alpha, 0.0)
            placed[name] = Placed(rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    if not placed:
        ends = dict.fromkeys(".".join(name.split(".")[-2:]) for name in names)          # attn.c_attn, ...
        raise ValueError(f"target_modules = {config['target_modules']!r} names no layer that can be adapted: expected "
                         f"some of {', '.join(ends)}")
    return placed


def is_target(config: dict, key: str) -> bool:
    """Whether the module of this name has an update."""
    modules, excluded = config["target_modules"], config.get("exclude_modules") or []
    if is_named(excluded, key, "exclude_modules") or is_saved(config, key):
        return False
    if isinstance(modules, str) and modules.lower() == "all-linear":
        return True
    return is_named(modules, key, "target_modules") and (isinstance(modules, str) or is_in_block(config, key))


def is_named(modules: Any, key: str, name: str) -> bool:
    """Whether a list has the module, or the end of its name; or a regular expression matches all of it."""
    if isinstance(modules, str):
        return matched(modules, key, name)
    return any(f".{key}".endswith(f".{module}") for module in texts(modules, name))


def is_saved(config: dict, key: str) -> bool:
    """Whether the module lies in one that the file holds whole."""
    saved = texts(config.get("modules_to_save") or [], "modules_to_save")
    return any(matched(rf"(.*\.)?{module}(\..*)?", key, "modules_to_save") for module in saved)


def is_in_block(config: dict, key: str) -> bool:
    """Whether the module lies in one of layers_to_transform; in any where there are none."""
    wanted = config.get("layers_to_transform")
    if wanted is None or wanted == []:
        return True
    wanted = [wanted] if type(wanted) is int else wanted
    if not isinstance(wanted, list) or not all(type(number) is int for number in wanted):
        raise ValueError(f"layers_to_transform must be a number, or a list of them: got {wanted!r}")
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in texts([patterns] if isinstance(patterns, str) else patterns, "layers_pattern"):
        found = search(rf"(?:^|.*?\.){pattern}\.(?P<number>\d+)\.", key, "layers_pattern")
        if found:
            return int(found["number"]) in wanted                # the first that matches decides
    return False


def of_pattern(config: dict, name: str, key: str, default: Any) -> Any:
    """The value of the first regular expression that matches the end of the module's name, or the default."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{name} must map regular expressions to numbers: got {patterns!r}")
    return next((value for pattern, value in patterns.items() if matched(rf"(.*\.)?({pattern})", key, name)), default)


def texts(values: Any, name: str) -> Sequence[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} must be a list of names: got {values!r}")
    return values


def matched(pattern: str, key: str, name: str) -> bool:
    return search(rf"(?:{pattern})\Z", key, name) is not None


def search(pattern: str, key: str, name: str) -> Any:
    """The match from the beginning of a key. Raises ValueError for a pattern that is none, or takes too long."""
    try:
        return regex.match(pattern, key, timeout=SECONDS)
    except (regex.error, TimeoutError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {pattern!r} is no usable regular expression: {error}") from None
