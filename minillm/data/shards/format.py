"""The format of token shards: flat files of uint16 (uint32 for a large vocabulary), memory-mapped for training.

    train_00000.bin train_00001.bin ... val_00000.bin     little-endian token ids, perhaps behind llm.c's header
    shards.json                                            what they are, how many, from how many bytes; written last

The sidecar says that the rest is whole: a writer that is killed leaves none, and `open_shards` refuses the folder. It
keeps each side's UTF-8 bytes, which turn a loss per token into bits per byte, comparable between tokenizers.
write.py writes shards, split.py decides which side a document is on.
"""
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIDECAR = "shards.json"
FORMAT = "minillm shards 1"
SIDES = ("train", "val")
PROBE = "The quick brown fox: naïve 12,345 tokens\n\tdef f(x): return x"   # for tokenizers without fingerprint
FEW = 16                    # documents; also tokens that are too few to recognize a text by
CHECK_TOKENS = 2**20        # tokens that Shards.check reads at a time
PAGES = 2**21               # bytes around an address that the system may map at once


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

    def check(self, progress: Callable | None = None) -> None:
        """Read every token once; ValueError naming the file with a changed byte or an id outside the vocabulary."""
        files = [file for split in (self.train, self.val) for file in zip(split.arrays, split.files, split.checksums)]
        done, total = 0, self.train.tokens + self.val.tokens
        if progress:
            progress(0, total)
        with ThreadPoolExecutor(os.cpu_count()) as pool:         # hashing lets other threads run
            for tokens in pool.map(lambda file: check_file(self.vocab_size, *file), files):
                done += tokens
                if progress:
                    progress(done, total)


def check_file(vocab_size: int, array: np.ndarray, path: Path, checksum: str) -> int:
    """As Shards.check, of one file; returns its tokens."""
    digest = blake2b()
    for start in range(0, len(array), CHECK_TOKENS):
        part = array[start:start + CHECK_TOKENS]
        if part.max() >= vocab_size:
            raise ValueError(f"{path} holds id {part.max()}, outside the vocabulary of {vocab_size}: it is damaged")
        digest.update(part.view(np.uint8))
        let_go(part)
    if digest.hexdigest() != checksum:
        raise ValueError(f"{path} is not the file that was written, its checksum has changed: make the shards again")
    return len(array)


def let_go(part: np.ndarray) -> None:
    """Give back the memory of a part of a map that was read; whoever reads it again maps it again.

    The system would do so only when memory is short: of a file of 10 GB all would be counted as this process's.
    """
    mapped = getattr(part, "_mmap", None)
    if mapped is None or not hasattr(mmap, "MADV_DONTNEED"):                # not a map; Windows
        return
    first = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    start = part.__array_interface__["data"][0]
    low, high = max(first, start // PAGES * PAGES), (start + part.nbytes) // PAGES * PAGES + PAGES
    mapped.madvise(mmap.MADV_DONTNEED, low - first, high - low)             # no more than there is


def read_at_random(array: np.ndarray) -> None:
    """Tell the system not to read ahead in a map: a block's neighbours are wanted at some other time."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)


def open_shards(directory: str | os.PathLike, progress: Callable | None = None, check: bool = True) -> "Shards":
    """Map the shards in `directory`, every byte of which is checked once, unless another process has just done so
    (check=False). progress(done, total) counts tokens.

    Raises FileNotFoundError when there is no sidecar or a shard is missing; ValueError naming the file when the
    sidecar is damaged or a shard is not what was written.
    """
    directory = Path(directory)
    path = directory / SIDECAR
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no finished shards: {SIDECAR}, which is written last, is not there")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"{path}: format is {meta['format']!r}, expected {FORMAT!r}")
        if meta.get("blake2b", meta_checksum(meta)) != meta_checksum(meta):      # a sidecar of before has none
            raise ValueError(f"{path} is not the file that was written, its checksum has changed: make them again")
        dtype = np.dtype(meta["dtype"])
        train, val = (_open_side(directory, meta["splits"][side], dtype, meta.get("header_bytes", 0))
                      for side in SIDES)
        shards = Shards(train, val, meta["vocab_size"], meta["eot_token"], dtype, meta["tokenizer"], meta)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    if check:
        shards.check(progress)
    return shards


def meta_checksum(meta: dict) -> str:
    """Of all that a sidecar says, but for its checksum: a value that JSON gives back has the same text."""
    return blake2b(json.dumps({key: meta[key] for key in meta if key != "blake2b"}).encode()).hexdigest()


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


def split_documents(split: Split, tokenizer: Any) -> list[bytes]:
    """The documents of a split as bytes, decoded from their tokens."""
    return [tokenizer.decode_bytes(ids) for ids in documents_of(split, tokenizer.eot_token)]


def documents_of(split: Split, eot_token: int | None) -> Iterator[np.ndarray]:
    """The ids of each document, without its end-of-text token."""
    ids = np.concatenate(split.arrays)
    ends = np.flatnonzero(ids == eot_token)
    return (ids[start:end] for start, end in zip([0, *(ends + 1)], ends))


def count_leaked(shards: Shards) -> int:
    """Documents of the validation split that are in the training split, too.

    Splitting by a hash of the text leaves none, but few documents are cut (split.py), which may leave the end of one
    that is there whole; and others may have made the shards.
    """
    held_out = list(documents_of(shards.val, shards.eot_token))
    known = {ids.tobytes() for ids in documents_of(shards.train, shards.eot_token)}
    if len(held_out) > FEW:
        return sum(ids.tobytes() in known for ids in held_out)
    text = b"".join(known)                                            # behind a cut the first token may be another
    return sum(ids.tobytes() in known or len(ids) > FEW and ids[1:].tobytes() in text for ids in held_out)


def token_dtype(vocab_size: int) -> np.dtype:
    """Of the tokens in a shard: little-endian uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def fingerprint(tokenizer: Any) -> str:
    """The tokenizer's own `fingerprint` (a string, or a method that gives one); else a hash of a probe's ids."""
    own = getattr(tokenizer, "fingerprint", None)
    if own is not None:
        return own() if callable(own) else own
    ids = [int(token) for token in tokenizer.encode(PROBE)]
    return blake2b(repr((int(tokenizer.vocab_size), ids)).encode()).hexdigest()


def blake2b(data: Any = b"") -> Any:
    """The hash of shards and fingerprints: 128 bits of BLAKE2b (RFC 7693)."""
    return hashlib.blake2b(data, digest_size=16)
