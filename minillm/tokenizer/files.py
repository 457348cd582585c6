"""The files that hold a tokenizer, and what each of them says in the terms of a tokenizer.json.

A directory is searched for, in this order:

    tokenizer.json                      Hugging Face's
    vocab.json and merges.txt           those of GPT-2, with added_tokens.json, special_tokens_map.json and
    encoder.json and vocab.bpe          tokenizer_config.json where they are there; OpenAI's release has the other names
    tokenizer.model                     SentencePiece's, or the ranks of Llama 3
    *.tiktoken                          ranks, whose name tells the pattern (rank_files.py)
"""
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import formats
from .roles import CONFIG, MAP, ROLES, read_object
from .sentencepiece_model import read_model

PAIRS = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}
ADDED = "added_tokens.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
SENTENCEPIECE = b"\x0a"                 # how such a file begins: with its first piece


def tokenizer_file(path: Path) -> Path:
    """The file itself, or the first of a directory that holds a tokenizer; tokenizer.json where there is none."""
    if not path.is_dir():
        return path
    names = ["tokenizer.json", *PAIRS, "tokenizer.model", *sorted(file.name for file in path.glob("*.tiktoken"))]
    return path / next((name for name in names if (path / name).is_file()), "tokenizer.json")


def written_name(path: Path) -> str:
    """A file's name for messages: of a pair, both."""
    return f"{path} and {PAIRS[path.name]}" if path.name in PAIRS else str(path)


def holds_ranks(path: Path) -> bool:
    """Whether it is a rank file, by its name and, of a tokenizer.model, by how it begins."""
    if path.suffix != ".model":
        return path.suffix == ".tiktoken"
    with open(path, "rb") as file:
        return file.read(1) != SENTENCEPIECE


def read_document(path: Path) -> dict:
    """What a file says, as a tokenizer.json. Raises ValueError naming what is wrong, FileNotFoundError."""
    if path.suffix == ".model":
        return read_model(path)
    return pair_document(path) if path.name in PAIRS else formats.read_json(path)


def pair_document(vocab_file: Path) -> dict:
    """GPT-2's pair of files, and the added tokens that the files beside it name."""
    directory, merges_file = vocab_file.parent, vocab_file.parent / PAIRS[vocab_file.name]
    ids = formats.read_json(vocab_file)
    merges = [list(map(formats.bytes_to_chars, pair)) for pair in formats.read_merges(merges_file)]
    config = read_object(directory / CONFIG)
    prefix = config.get("add_prefix_space") is True
    level = formats.BYTE_LEVEL | {"add_prefix_space": prefix, "use_regex": True}
    return {"added_tokens": list(added_tokens(directory, config, ids)), "normalizer": None, "pre_tokenizer": level,
            "post_processor": None, "decoder": level, "model": {"type": "BPE", "vocab": ids, "merges": merges}}


def added_tokens(directory: Path, config: dict, ids: dict[str, int]) -> Iterable[dict]:
    """Those of tokenizer_config.json; else of added_tokens.json, special where special_tokens_map.json names them. So
    are tokens that have a role, and <|endoftext|>, which GPT-2 has in any case: behind the others, if they have no id.
    """
    found: dict[str, dict[str, Any]] = {}
    named = config if "added_tokens_decoder" in config else config | read_object(directory / MAP)
    roles = [named[role] for role in ROLES if role in named]
    more = formats.expect(named.get("additional_special_tokens") or [], list, "additional_special_tokens")
    listed = map(text_of, [*roles, *more, "<|endoftext|>"])
    special = dict.fromkeys(text for text in listed if text)
    decoder = formats.expect(config.get("added_tokens_decoder") or {}, dict, f"{CONFIG}: added_tokens_decoder")
    for id, token in decoder.items():
        formats.expect(token, dict, f"{CONFIG}: added_tokens_decoder {id}")
        formats.expect(token.get("content"), str, f"{CONFIG}: added_tokens_decoder {id}: content")
        found[token.get("content")] = {"id": int(id), **{flag: bool(token.get(flag)) for flag in FLAGS}}
    if "added_tokens_decoder" not in config:
        for text, id in read_object(directory / ADDED).items():
            found[text] = {"id": id, **flags(text in special)}
    for text, id in [*ids.items(), *((text, token["id"]) for text, token in found.items())]:
        formats.expect(text, str, "a token's text")
        formats.expect(id, int, f"id of token {text!r:.80}")
    free = 1 + max([*ids.values(), *(token["id"] for token in found.values())], default=-1)
    for text in special:
        if text not in found:
            found[text] = {"id": ids.get(text, free), **flags(True)}
            free += text not in ids
    return [{"content": text, **token} for text, token in found.items()]


def flags(special: bool) -> dict[str, bool]:
    return dict.fromkeys(FLAGS, False) | {"normalized": not special, "special": special}


def text_of(token: Any) -> str | None:
    """A token's text, which may be written with its options."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None
