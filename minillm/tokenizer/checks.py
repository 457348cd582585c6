"""Validation of vocabularies, merges, special tokens and texts; each function returns what it found or raises.

A vocabulary with a hole (a byte without a token, a merge before its parts) would not fail at once: it would give wrong
ids for some texts, silently.
"""
from collections.abc import Collection, Iterable
from functools import lru_cache
from operator import index
from os.path import commonprefix
from typing import Any

import numpy as np

from .added import AddedToken
from .formats import MOST_IDS_LEFT_OUT, chars_to_bytes
from .pretokenize import special_matcher

Specials = Collection[str] | str                    # some special tokens, or "all"


def ordinary_ids(tokens: list[bytes | None], added: Iterable[AddedToken],
                 merges: list[tuple[bytes, bytes]]) -> dict[bytes, int]:
    """bytes -> id of the tokens that merging can make. Raises ValueError if two share their bytes, a byte lacks, or
    more ids stand for nothing than a file may leave out. An added token is one of them only if merges make it, too."""
    if tokens.count(None) > MOST_IDS_LEFT_OUT:
        raise ValueError(f"tokens: {tokens.count(None)} ids stand for nothing: expected at most {MOST_IDS_LEFT_OUT}")
    made = {first + second for first, second in merges}
    added_ids = {token.id for token in added}
    ids: dict[bytes, int] = {}
    for i, token in enumerate(tokens):
        if token is not None and i not in added_ids and ids.setdefault(token, i) != i:
            raise ValueError(f"tokens {ids[token]} and {i} are both {token!r}")
    for i in sorted(added_ids):
        if (token := tokens[i]) is not None and (token in made or len(token) == 1):
            ids.setdefault(token, i)
    for byte in range(256):
        if bytes([byte]) not in ids:
            raise ValueError(f"no token for the single byte {byte:#04x}: not a byte-level vocabulary")
    for text, id, special, *_ in added:
        data = chars_to_bytes(text)
        if data in ids and (ids[data] != id or data != text.encode("utf-8")):
            raise ValueError(f"{'special' if special else 'added'} token {text!r} is written like an ordinary token")
    return ids


def rank_merges(merges: list[tuple[bytes, bytes]], ids: dict[bytes, int]) -> tuple[dict, list[int], bool]:
    """(id, id) -> rank, rank -> id made, and whether the merges are simple: every merge that makes a token stands
    before the first that uses it. Raises ValueError unless all parts and results are tokens.

    (Learned merges are simple. Those of Llama 3's tokenizer.json are not: all pairs of tokens that make a third.)
    """
    ranks: dict[tuple[int, int], int] = {}
    made: list[int] = []
    simple = True
    used: set[bytes] = set()
    for rank, (first, second) in enumerate(merges):
        token = first + second
        if token not in ids or first not in ids or second not in ids:
            raise ValueError(f"merge {rank} of {first!r} and {second!r}: its parts and the result must be tokens")
        simple = simple and token not in used
        used.update((first, second))
        made.append(ids[token])
        if ranks.setdefault((ids[first], ids[second]), rank) != rank:
            raise ValueError(f"merge {rank} of {first!r} and {second!r} is there twice")
    return ranks, made, simple


def check_specials(special_tokens: Iterable[str]) -> list[str]:
    """The special tokens as a list. Raises ValueError unless they are distinct non-empty texts."""
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a list of str: got the str {special_tokens!r}")
    specials = list(special_tokens)
    for text in specials:
        if not isinstance(text, str) or not text or any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"special_tokens must be non-empty texts without surrogates: got {text!r}")
    if len(set(specials)) < len(specials):
        raise ValueError(f"special_tokens must be distinct: got {specials}")
    return specials


def check_vocab_size(vocab_size: int, n_special: int) -> int:
    """The number of merges that fit. Raises ValueError naming vocab_size if the bytes and specials do not."""
    least = 256 + n_special
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, (int, np.integer)) or vocab_size < least:
        raise ValueError(f"vocab_size must be an integer of at least {least} "
                         f"(256 bytes and {n_special} special tokens): got {vocab_size!r}")
    return int(vocab_size) - least


def check_text(text: str, disallowed: frozenset[str]) -> None:
    """Raises ValueError if `text` is no str, or holds one of the disallowed special tokens."""
    if not isinstance(text, str):
        raise ValueError(f"text must be str: got {type(text).__name__}")
    if disallowed and beginning(disallowed) in text and (found := special_matcher(disallowed).search(text)):
        raise ValueError(f"text holds the special token {found[0]!r} at {found.start()}: put it into allowed_special, "
                         "or pass disallowed_special=() (or use encode_ordinary) to encode it as ordinary text")


@lru_cache
def beginning(specials: frozenset[str]) -> str:
    """What all of them begin with: `in` says that a text has none many times as fast as `re`."""
    return commonprefix(list(specials))


def allowed_specials(allowed_special: Specials, special_tokens: Collection[str]) -> frozenset[str]:
    """The special tokens that a text may hold, as a set. Raises ValueError for others than the vocabulary's."""
    if allowed_special == "all":
        return frozenset(special_tokens)
    if isinstance(allowed_special, str):
        raise ValueError(f'allowed_special must be "all" or a set of special tokens: got {allowed_special!r}')
    for text in allowed_special:
        if text not in special_tokens:
            raise ValueError(f"allowed_special: {text!r} is no special token of this vocabulary")
    return frozenset(allowed_special)


def disallowed_specials(disallowed_special: Specials, special_tokens: Collection[str],
                        allowed: frozenset[str]) -> frozenset[str]:
    """The texts that must not occur, as a set."""
    if disallowed_special == "all":
        return frozenset() if allowed is special_tokens else frozenset(special_tokens) - allowed
    if isinstance(disallowed_special, str):
        raise ValueError(f'disallowed_special must be "all" or a set of texts: got {disallowed_special!r}')
    if not all(isinstance(text, str) and text for text in disallowed_special):
        raise ValueError(f"disallowed_special must hold texts, none empty: got {disallowed_special!r}")
    return frozenset(disallowed_special)


def integers(ids: Any) -> list[int]:
    """Ids as Python integers, from a sequence or iterator of any kind of them, an array or a tensor."""
    try:
        return list(map(index, ids.tolist() if hasattr(ids, "tolist") else ids))
    except TypeError:
        raise ValueError(f"ids must be integers, in one row: got {ids!r:.80}") from None
