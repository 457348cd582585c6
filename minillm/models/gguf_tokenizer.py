"""The tokenizer inside a GGUF file: tokens, their kinds and merges, and the name of the pattern that splits words.

Byte-level BPE is tokenizer.ggml.model "gpt2"; tokens are written in GPT-2's byte alphabet, special ones as they are.
llama.cpp has its patterns by name (tokenizer.ggml.pre) in its own source: a pattern that it lacks cannot be exported.
"""
from collections.abc import Callable
from typing import Any

from ..tokenizer import Tokenizer
from ..tokenizer.formats import bytes_to_chars, merge_lines, parse_merge, tokens_by_id

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5                      # tokenizer.ggml.token_type
PATTERNS = {"gpt2": "gpt-2", "cl100k": "smaug-bpe", "o200k": "gpt-4o"}  # ours -> llama.cpp's
OURS = {theirs: ours for ours, theirs in PATTERNS.items()} | {"phi-2": "gpt2", "mpt": "gpt2", "olmo": "gpt2",
                                                              "dbrx": "cl100k", "default": "gpt2"}


def write_vocabulary(writer: Any, tokenizer: Tokenizer, vocab_size: int, chat_template: str | None = None) -> None:
    """Add the keys of a tokenizer; ids up to vocab_size that it lacks are marked as unused.

    Raises ValueError for a pattern that llama.cpp does not know.
    """
    if tokenizer.pattern not in PATTERNS:
        raise ValueError(f"the tokenizer's pattern {tokenizer.pattern!r} is none that llama.cpp has: expected one of "
                         f"{', '.join(PATTERNS)}")
    names = {id: text for text, id in tokenizer.special_tokens.items()}
    tokens, kinds = [], []
    for id in range(vocab_size):
        token = bytes_of(tokenizer, id)
        tokens.append(names.get(id) or (f"[PAD{id}]" if token is None else bytes_to_chars(token)))
        kinds.append(CONTROL if id in names else UNUSED if token is None else NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PATTERNS[tokenizer.pattern])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merge_lines(tokenizer.merges))
    writer.add_add_bos_token(False)
    ends = sorted(tokenizer.ends or ([] if tokenizer.eot_token is None else [tokenizer.eot_token]))
    if ends:
        writer.add_bos_token_id(ends[0])
        writer.add_eos_token_id(ends[0])
    for end in ends[1:2]:
        writer.add_eot_token_id(end)
    if chat_template:
        writer.add_chat_template(chat_template)


def bytes_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    """The bytes of a token; None if the id stands for nothing."""
    try:
        return tokenizer.token_bytes(id)
    except ValueError:
        return None


def read_vocabulary(value: Callable) -> Tokenizer:
    """The Tokenizer that the metadata describes; value(key): of a key of the file, or None.

    Raises ValueError for another kind of tokenizer than byte-level BPE, or a pattern that is not known here.
    """
    kind, pre = value("tokenizer.ggml.model"), value("tokenizer.ggml.pre") or "default"
    if kind != "gpt2":
        raise ValueError(f"tokenizer.ggml.model = {kind!r} is not supported: expected gpt2, byte-level BPE")
    if pre not in OURS:
        raise ValueError(f"tokenizer.ggml.pre = {pre!r} is not supported: expected one of {', '.join(OURS)}")
    texts = value("tokenizer.ggml.tokens") or []
    kinds = value("tokenizer.ggml.token_type") or [NORMAL] * len(texts)
    specials = {text: id for id, (text, type) in enumerate(zip(texts, kinds)) if type in (CONTROL, USER_DEFINED)}
    ids = {text: id for id, (text, type) in enumerate(zip(texts, kinds)) if type != UNUSED}
    merges = [parse_merge(merge) for merge in value("tokenizer.ggml.merges") or []]
    tokenizer = Tokenizer(tokens_by_id(ids, specials), merges, specials, OURS[pre])
    ends = {value(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")} - {None}
    tokenizer.ends = frozenset(int(end) for end in ends)
    return tokenizer
