"""The roles of special tokens, as the files beside a tokenizer name them: what begins and ends a text, what pads one.

tokenizer_config.json and, where that lists no added tokens, special_tokens_map.json: {"eos_token": "</s>", ...}, each a
text or an object with its "content".
"""
from pathlib import Path
from typing import Any, NamedTuple

from ..storage.safetensors import parse_json_object

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"


class TextEnds(NamedTuple):
    """What the files of a model name: the ids that end a text, the learned one first, and the one that begins it."""

    eos: tuple[int, ...]
    bos: int | None


EndOfText = TextEnds | int | None


def read_roles(directory: Path) -> dict[str, str]:
    """{role: text of the special token} of a directory. Raises ValueError naming a file that is no JSON object."""
    config = read_object(directory / CONFIG)
    named = config if "added_tokens_decoder" in config else config | read_object(directory / MAP)
    texts = {role: named[role].get("content") if isinstance(named[role], dict) else named[role]
             for role in ROLES if role in named}
    return {role: text for role, text in texts.items() if isinstance(text, str) and text}


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty where there is no file."""
    return parse_json_object(path.read_bytes(), str(path)) if path.is_file() else {}


def said(tokenizer: Any) -> dict[str, Any]:
    """What the files of a directory say of a tokenizer, besides its parts: attributes that its copies take over."""
    return {name: getattr(tokenizer, name) for name in ("eot_token", "ends", "roles", "template")}


def role_id(tokenizer: Any, role: str) -> int | None:
    """The id of the token in a role; None where nothing is named, or what is named is no token."""
    text = tokenizer.roles.get(role)
    return None if text is None else token_id(tokenizer, text)


def token_id(tokenizer: Any, text: str) -> int | None:
    """The id of the token that a text is as a whole, special or not."""
    if text in tokenizer.special_tokens:
        return tokenizer.special_tokens[text]
    ids = tokenizer.encode_ordinary(text)
    return ids[0] if len(ids) == 1 else None


def document_end(tokenizer: Any, known: int | None = None) -> int | None:
    """What stands between documents: <|endoftext|>, or else what the files name as the end, or what is known."""
    ends = tokenizer.special_tokens.get("<|endoftext|>"), role_id(tokenizer, "eos_token"), known
    return next((end for end in ends if end is not None), None)


def document_start(tokenizer: Any) -> int | None:
    """What a text begins after: the token that the files name as the beginning, or the end of another document."""
    start = role_id(tokenizer, "bos_token")
    return tokenizer.eot_token if start is None else start


def opened(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids of a prompt behind those that the tokenizer's files put before every text, mostly <s> or nothing."""
    before = list(getattr(tokenizer, "before", ()))
    return ids if ids[:len(before)] == before else [*before, *ids]


def begun(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids of a text behind what a text begins after, if there is such a token and they do not begin with it."""
    start = document_start(tokenizer)
    return ids if start is None or ids[:1] == [start] else [start, *ids]


def as_ends(ends: EndOfText) -> TextEnds:
    """The ends of a text as a model's files name them; one id alone also begins a text."""
    return ends if isinstance(ends, TextEnds) else TextEnds(() if ends is None else (ends,), ends)
