"""SentencePiece's own file, tokenizer.model, read without its library, as the tokenizer.json that says the same.

It is a protocol buffer: fields one after the other, each a number that holds the field's number and its kind (0 an
integer of 7 bits a byte, 1 eight bytes, 2 a length and so many bytes, 5 four bytes), and the value:

    1   a piece, again and again: 1 its text, 2 its score, 3 its kind
    2   how it was trained: 3 the algorithm
    3   how text is normalized: 2 a table of replacements, 3 whether a blank is put in front, 4 whether other white
        space is removed

A piece is merged from any two that are its halves, and of all merges that are possible the one whose piece has the best
score comes first. So its merges are listed by score, and those of one piece by the ids of its halves.
"""
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..storage.atomic import AnyPath
from .formats import MOST_BYTES
from .sentencepiece_files import BLANK, REPLACE, RESTORE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
LENGTHS = {1: 8, 5: 4}


class Vocabulary(NamedTuple):
    """What is read of the file."""

    texts: list[str]
    scores: list[float]
    kinds: list[int]
    training: dict[int, Any]
    normalizer: dict[int, Any]


def read_model(path: AnyPath) -> dict:
    """A tokenizer.json's content. Raises ValueError for what is no such file, or of another algorithm than BPE."""
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    vocabulary = parse(Path(path).read_bytes())
    if (kind := vocabulary.training.get(3, 1)) != 2:
        raise ValueError(f"the model is of the kind {KINDS.get(kind, kind)}: only BPE is supported")
    if vocabulary.normalizer.get(2) or vocabulary.normalizer.get(4, 1):
        name = vocabulary.normalizer.get(1, b"").decode(errors="replace")
        raise ValueError(f"the normalizer {name!r} is not supported: it changes more of a text than its spaces")
    return document_of(vocabulary)


def parse(data: bytes) -> Vocabulary:
    found = Vocabulary([], [], [], {}, {})
    for field, value in fields(data):
        if field in (1, 2, 3) and not isinstance(value, bytes):
            raise ValueError(f"field {field} of the file must be a message")
        if field == 1:
            piece = dict(fields(value))
            found.texts.append(piece.get(1, b"").decode("utf-8"))
            found.scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
            found.kinds.append(piece.get(3, NORMAL))
        elif field in (2, 3):
            (found.training if field == 2 else found.normalizer).update(fields(value))
    if not found.texts:
        raise ValueError("no pieces: not a SentencePiece model")
    return found


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message's fields: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = integer(data, at)
        if (kind := key & 7) == 0:
            value, at = integer(data, at)
            yield key >> 3, value
            continue
        size, at = integer(data, at) if kind == 2 else (LENGTHS.get(kind, len(data)), at)
        if at + size > len(data):
            raise ValueError("not a SentencePiece model: a field is longer than the file")
        yield key >> 3, data[at:at + size]
        at += size


def integer(data: bytes, at: int) -> tuple[int, int]:
    """The integer at a place, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("not a SentencePiece model: an integer has no end")


def document_of(vocabulary: Vocabulary) -> dict:
    texts, kinds = vocabulary.texts, vocabulary.kinds
    unknown = next((text for text, kind in zip(texts, kinds) if kind == UNKNOWN), None)
    in_front = bool(vocabulary.normalizer.get(3, 1))
    special = [added(id, text, True) for id, (text, kind) in enumerate(zip(texts, kinds)) if kind in (UNKNOWN, CONTROL)]
    plain = [added(id, text, False) for id, (text, kind) in enumerate(zip(texts, kinds)) if kind == USER_DEFINED]
    start = next((token for token in special if token["content"] in ("<s>", "<bos>")), None)
    model = {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": BYTE in kinds, "ignore_merges": False,
             "vocab": {text: id for id, text in enumerate(texts)}, "merges": merges_of(vocabulary)}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * in_front
    prepend = [{"type": "Prepend", "prepend": BLANK}] * in_front
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special + plain,
            "normalizer": {"type": "Sequence", "normalizers": [*prepend, REPLACE]}, "pre_tokenizer": None,
            "post_processor": template(start) if start else None,
            "decoder": {"type": "Sequence", "decoders": [RESTORE, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
            "model": model}


def added(id: int, text: str, special: bool) -> dict:
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text if special else text.replace(BLANK, " "), **options, "special": special}


def template(start: dict) -> dict:
    """The post-processor that puts a token before a text."""
    token, text = start["content"], {"Sequence": {"id": "A", "type_id": 0}}
    pair = {"Sequence": {"id": "B", "type_id": 1}}
    first, second = ({"SpecialToken": {"id": token, "type_id": i}} for i in (0, 1))
    return {"type": "TemplateProcessing", "single": [first, text], "pair": [first, text, second, pair],
            "special_tokens": {token: {"id": token, "ids": [start["id"]], "tokens": [token]}}}


def merges_of(vocabulary: Vocabulary) -> list[list[str]]:
    """All pairs of pieces that make a piece, in the order in which they are merged."""
    ids = {text: id for id, (text, kind) in enumerate(zip(vocabulary.texts, vocabulary.kinds))
           if kind in (NORMAL, USER_DEFINED, UNUSED)}
    merges = []
    for text in sorted(ids, key=lambda text: -vocabulary.scores[ids[text]]):
        halves = ((text[:at], text[at:]) for at in range(1, len(text)))
        known = [(ids[left], ids[right], left, right) for left, right in halves if left in ids and right in ids]
        merges += [[left, right] for _, _, left, right in sorted(known)]
    return merges
