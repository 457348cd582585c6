"""The format of token shards: flat files of uint16 (uint32 for a large vocabulary), memory-mapped for training.

    train_00000.bin train_00001.bin ... val_00000.bin     little-endian token ids, perhaps behind llm.c's header
    shards.json                                            what they are, how many, from how many bytes; written last

The sidecar says that the rest is whole: a writer that is killed leaves none, and `open_shards` refuses the folder. It
keeps each side's UTF-8 bytes, which turn a loss per token into bits per byte, comparable between tokenizers.
write.py writes shards, split.py decides which side a document is on.
"""
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDECAR = "shards.json"
FORMAT = "minillm shards 1"
SIDES = ("train", "val")
PROBE = "The quick brown fox: naïve 12,345 tokens\n\tdef f(x): return x"   # for tokenizers without fingerprint
CHECK_TOKENS = 2**22        # tokens that Shards.check reads at a time


@dataclass(frozen=True)
class Split:
    """One side: `arrays` are read-only memory maps, (tokens,) each; `bytes` is the UTF-8 length of their text."""
    arrays: Sequence[np.ndarray]
    tokens: int
    documents: int
    bytes: int
    files: list[Path]
    checksums: list[str]


@dataclass(frozen=True)
class Shards:
    """Both sides, mapped, and what the sidecar says of them."""
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
                digest = blake2b()
                for start in range(0, len(array), CHECK_TOKENS):
                    part = array[start:start + CHECK_TOKENS]
                    if part.max() >= self.vocab_size:
                        raise ValueError(f"{path} holds id {part.max()}, outside the vocabulary of {self.vocab_size}")
                    digest.update(part.view(np.uint8))
                if digest.hexdigest() != checksum:
                    raise ValueError(f"{path} is not the file that was written: its checksum has changed")


def open_shards(directory: str | os.PathLike) -> "Shards":
    """Map the shards in `directory`.

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
        train, val = (_open_side(directory, meta["splits"][side], dtype, meta.get("header_bytes", 0))
                      for side in SIDES)
        return Shards(train, val, meta["vocab_size"], meta["eot_token"], dtype, meta["tokenizer"], meta)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _open_side(directory: Path, meta: dict, dtype: np.dtype, header: int) -> Split:
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


def split_documents(split: Split, tokenizer) -> list[bytes]:
    """The documents of a split as bytes, decoded from their tokens."""
    ids = np.concatenate(split.arrays)
    ends = np.flatnonzero(ids == tokenizer.eot_token)
    return [tokenizer.decode_bytes(ids[start:end]) for start, end in zip([0, *(ends + 1)], ends)]


def token_dtype(vocab_size: int) -> np.dtype:
    """Of the tokens in a shard: little-endian uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def fingerprint(tokenizer) -> str:
    """The tokenizer's own `fingerprint` (a string, or a method that gives one); else a hash of a probe's ids."""
    own = getattr(tokenizer, "fingerprint", None)
    if own is not None:
        return own() if callable(own) else own
    ids = [int(token) for token in tokenizer.encode(PROBE)]
    return blake2b(repr((int(tokenizer.vocab_size), ids)).encode()).hexdigest()


def blake2b(data=b""):
    """The hash of shards and fingerprints: 128 bits of BLAKE2b (RFC 7693)."""
    return hashlib.blake2b(data, digest_size=16)
