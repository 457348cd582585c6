"""Tokens on the disk: flat files of uint16 (uint32 for a large vocabulary) that are mapped, not read, when training.

    train_00000.bin train_00001.bin ... val_00000.bin     little-endian token ids, nothing else
    shards.json                                            what they are, how many, from how many bytes; written last

The sidecar is the promise that the rest is whole: a writer that is killed leaves none, and `open_shards` refuses
the folder. A document goes to training or to validation by a keyed hash of its text (BLAKE2b, RFC 7693), so the
split does not depend on the order of the documents, and identical documents never stand on both sides. The sidecar
keeps each split's UTF-8 bytes, which turn a loss per token into bits per byte, comparable between tokenizers.
"""
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...storage.atomic import atomic_write, write_json

SIDECAR = "shards.json"
FORMAT = "minillm shards 1"
SPLITS = ("train", "val")
HOLD_BYTES = 2**26          # text held back while one of the splits has had no document yet
PROBE = "The quick brown fox: naïve 12,345 tokens\n\tdef f(x): return x"   # for tokenizers without fingerprint
CHECK_TOKENS = 2**22        # tokens looked at together by Shards.check


def write_shards(documents: Iterable[tuple[str, str] | str], tokenizer, directory: str | os.PathLike,
                 val_fraction: float = 0.05, seed: int = 0, shard_tokens: int = 2**24,
                 progress: Callable[[int, int | None], None] | None = None) -> dict:
    """Tokenize a stream of (name, text) documents (or plain texts) into shards; returns what `shards.json` holds.

    `tokenizer` has .encode_ordinary(text) -> ids (or .encode, for one without special tokens), .vocab_size and
    .eot_token, the id put behind each document (None: nothing is). A special token's text in a document is just text.
    `progress(done, total)` counts documents; total is None for a stream of unknown length. Memory: about a
    shard and a document for each split. Earlier shards in `directory` are replaced, and they are gone from the
    first write on.

    When the hash leaves one split without any document (a single long one, or a few), the last `val_fraction` of
    the text becomes validation, cut at a document's beginning or a paragraph's end where there is one near. (Of a
    stream in which one split is still empty after 64 MiB, the last `val_fraction` of those 64 MiB.)

    Raises ValueError for no text at all, a text that is not valid Unicode, an id outside the vocabulary, bad arguments.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, got {val_fraction}")
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens must be >= 1, got {shard_tokens}")
    directory = Path(directory)
    _clear(directory)
    writers = {split: _SplitWriter(directory, split, tokenizer, shard_tokens) for split in SPLITS}
    total = len(documents) if hasattr(documents, "__len__") else None
    for done, (split, text) in enumerate(_assign(documents, val_fraction, seed), start=1):
        writers[split].add(text)
        if progress and (done % 64 == 0 or done == total):
            progress(done, total)
    meta = {"format": FORMAT, "dtype": _dtype(tokenizer.vocab_size).str, "vocab_size": int(tokenizer.vocab_size),
            "eot_token": tokenizer.eot_token, "tokenizer": fingerprint(tokenizer), "seed": seed,
            "val_fraction": val_fraction, "splits": {split: writer.finish() for split, writer in writers.items()}}
    write_json(directory / SIDECAR, meta, indent=1)
    return meta


def open_shards(directory: str | os.PathLike) -> "Shards":
    """Map the shards that `write_shards` left in `directory`.

    Raises FileNotFoundError when there is no sidecar or a shard is missing; ValueError naming the file when the
    sidecar is damaged or a shard has not the size it says.
    """
    directory = Path(directory)
    path = directory / SIDECAR
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no finished shards: {SIDECAR}, which is written last, is not there")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"format is {meta['format']!r}, expected {FORMAT!r}")
        dtype = np.dtype(meta["dtype"])
        train, val = (_open_split(directory, meta["splits"][split], dtype, meta.get("header_bytes", 0)) for split in SPLITS)
        return Shards(train, val, meta["vocab_size"], meta["eot_token"], dtype, meta["tokenizer"], meta)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


@dataclass(frozen=True)
class Split:
    """One side of the split: `arrays` are read-only maps, in order; `bytes` is the UTF-8 length of their text."""
    arrays: list[np.ndarray]
    tokens: int
    documents: int
    bytes: int
    files: list[Path]
    checksums: list[str]


@dataclass(frozen=True)
class Shards:
    train: Split
    val: Split
    vocab_size: int
    eot_token: int | None
    dtype: np.dtype
    fingerprint: str     # of the tokenizer that wrote them
    meta: dict           # all of shards.json

    def check(self) -> None:
        """Read every token once; ValueError naming the file with a changed byte or an id outside the vocabulary."""
        for split in (self.train, self.val):
            for array, path, checksum in zip(split.arrays, split.files, split.checksums):
                digest = _blake2b()
                for start in range(0, len(array), CHECK_TOKENS):
                    part = array[start:start + CHECK_TOKENS]
                    if part.max() >= self.vocab_size:
                        raise ValueError(f"{path} holds id {part.max()}, outside the vocabulary of {self.vocab_size}")
                    digest.update(part.view(np.uint8))
                if digest.hexdigest() != checksum:
                    raise ValueError(f"{path} is not the file that was written: its checksum has changed")


def split_of(text: str, val_fraction: float, seed: int) -> str:
    """"train" or "val", by the text and the seed alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()[:64]).digest()
    return "val" if int.from_bytes(digest, "little") < val_fraction * 2**64 else "train"


def fingerprint(tokenizer) -> str:
    """The tokenizer's own `fingerprint` (a string, or a method that gives one); else a hash of a probe's ids."""
    own = getattr(tokenizer, "fingerprint", None)
    if own is not None:
        return own() if callable(own) else own
    ids = [int(token) for token in tokenizer.encode(PROBE)]
    return _blake2b(repr((int(tokenizer.vocab_size), ids)).encode()).hexdigest()


def _assign(documents, val_fraction: float, seed: int):
    """Yield (split, text). Documents are held back until both splits have one, so that neither ends up empty."""
    held: list[tuple[str, str]] = []
    size, both = 0, False
    for document in documents:
        text = _checked_text(document)
        if not text:
            continue
        assigned = split_of(text, val_fraction, seed), text
        if both:
            yield assigned
            continue
        held.append(assigned)
        size += len(text)
        both = len({split for split, _ in held}) == 2
        if both or size > HOLD_BYTES:
            yield from held if both else _cut([text for _, text in held], val_fraction)
            held, both = [], True
    if held:
        yield from _cut([text for _, text in held], val_fraction)
    elif not both:
        raise ValueError("no text at all: there are no documents, or only empty ones")


def _checked_text(document: tuple[str, str] | str) -> str:
    name, text = (document[:40], document) if isinstance(document, str) else document
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"document {name!r} holds half a surrogate pair and is no valid Unicode text") from None
    return text


def _cut(texts: list[str], val_fraction: float):
    """The last `val_fraction` of the characters is validation, from a document's beginning if one is near."""
    total = sum(map(len, texts))
    target = total * (1 - val_fraction)
    starts = np.cumsum([0, *map(len, texts)])[:-1]                 # (documents,) where each begins
    near = [index for index, start in enumerate(starts)
            if index and 0.5 * val_fraction * total <= total - start <= 2 * val_fraction * total]
    if near:
        first = min(near, key=lambda index: abs(starts[index] - target))
        halves = [("train", text) for text in texts[:first]], [("val", text) for text in texts[first:]]
    else:
        first = int(np.searchsorted(starts, target, side="right")) - 1
        at = _cut_inside(texts[first], int(target - starts[first]))
        halves = ([("train", text) for text in [*texts[:first], texts[first][:at]] if text],
                  [("val", text) for text in [texts[first][at:], *texts[first + 1:]] if text])
    if not all(halves):
        raise ValueError("too little text to split into training and validation: "
                         f"{len(texts)} documents of {total} characters together")
    yield from (*halves[0], *halves[1])


def _cut_inside(text: str, target: int) -> int:
    """Behind the last paragraph, line or word that ends in the tenth of `text` before `target`, else at `target`."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, max(0, target - len(text) // 10), target)
        if found >= 0:
            return found + len(mark)
    return target


class _SplitWriter:
    """Gathers one split's tokens and writes a file whenever `shard_tokens` of them are there."""

    def __init__(self, directory: Path, split: str, tokenizer, shard_tokens: int):
        self.directory, self.split, self.tokenizer, self.shard_tokens = directory, split, tokenizer, shard_tokens
        self.encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
        self.dtype = _dtype(tokenizer.vocab_size)
        self.waiting: list[np.ndarray] = []
        self.waiting_tokens = 0
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0}
        self.files: list[dict] = []

    def add(self, text: str) -> None:
        ids = np.asarray(self.encode(text), dtype=np.int64)    # (tokens,)
        if self.tokenizer.eot_token is not None:
            ids = np.append(ids, self.tokenizer.eot_token)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise ValueError(f"tokenizer gave ids {ids.min()}..{ids.max()}, outside its vocabulary of "
                             f"{self.tokenizer.vocab_size}")
        self.counts["documents"] += 1
        self.counts["tokens"] += ids.size
        self.counts["bytes"] += len(text.encode())
        self.waiting.append(ids.astype(self.dtype))
        self.waiting_tokens += ids.size
        if self.waiting_tokens >= self.shard_tokens:
            self._write_full_shards()

    def finish(self) -> dict:
        """Write what is left; returns the split's part of the sidecar."""
        if self.waiting_tokens:
            self._write(np.concatenate(self.waiting))
        return {**self.counts, "files": self.files}

    def _write_full_shards(self) -> None:
        tokens = np.concatenate(self.waiting)
        while len(tokens) >= self.shard_tokens:
            self._write(tokens[:self.shard_tokens])
            tokens = tokens[self.shard_tokens:]
        self.waiting, self.waiting_tokens = [tokens.copy()], len(tokens)   # copy: let go of the large array

    def _write(self, tokens: np.ndarray) -> None:
        name = f"{self.split}_{len(self.files):05d}.bin"
        with atomic_write(self.directory / name, "wb") as file:
            file.write(tokens.view(np.uint8))
        self.files.append({"name": name, "tokens": len(tokens), "blake2b": _blake2b(tokens.view(np.uint8)).hexdigest()})


def _open_split(directory: Path, meta: dict, dtype: np.dtype, header: int) -> Split:
    arrays, paths = [], [directory / entry["name"] for entry in meta["files"]]
    for path, entry in zip(paths, meta["files"]):
        if not path.exists():
            raise FileNotFoundError(f"{path}, which {SIDECAR} lists, is missing")
        expected, actual = header + entry["tokens"] * dtype.itemsize, path.stat().st_size
        if actual != expected:
            raise ValueError(f"{path} has {actual} bytes, expected {expected}: it is damaged or was truncated")
        arrays.append(np.memmap(path, dtype=dtype, mode="r", offset=header))
    return Split(arrays, meta["tokens"], meta["documents"], meta["bytes"], paths,
                 [entry["blake2b"] for entry in meta["files"]])


def _clear(directory: Path) -> None:
    """Remove earlier shards, the sidecar first, and what a killed writer left."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SIDECAR).unlink(missing_ok=True)
    for path in directory.iterdir():
        if re.fullmatch(r"(train|val)_\d{5}\.bin|\.(train_\d{5}\.bin|val_\d{5}\.bin|shards\.json)\..*\.tmp", path.name):
            path.unlink()


def _dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _blake2b(data=b""):
    return hashlib.blake2b(data, digest_size=16)


def split_documents(split, tokenizer):
    """The documents of a split as bytes, back from their tokens."""
    ids = np.concatenate(split.arrays)
    ends = np.flatnonzero(ids == tokenizer.eot_token)
    return [tokenizer.decode_bytes(ids[start:end]) for start, end in zip([0, *(ends + 1)], ends)]
