"""Write token shards: one writer of a side's tokens and of the sidecar, for every source of documents.

`write_shards` takes a stream of documents in this process; tokenize.py does a large corpus in parallel, and resumes.
"""
import os
import re
from collections.abc import Callable, Iterable, Sized
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from ...config import check_counts
from ...storage.atomic import atomic_write, write_json
from ..batches import encodable
from . import llmc
from .format import FORMAT, SIDECAR, SIDES, blake2b, fingerprint, meta_checksum, token_dtype
from .split import assign_sides

SHARD_NAME = re.compile(r"(train|val)_\d{5,}\.bin|\.(train_\d{5,}\.bin|val_\d{5,}\.bin|shards\.json)\..*\.tmp")


def write_shards(documents: Iterable[tuple[str, str] | str], tokenizer: Any, directory: str | os.PathLike,
                 val_fraction: float = 0.05, seed: int = 0, shard_tokens: int = 2**24,
                 progress: Callable[[int, int | None], None] | None = None) -> dict:
    """Tokenize a stream of (name, text) documents (or plain texts) into shards; returns what `shards.json` holds.

    `tokenizer` has .encode_ordinary(text) -> ids (or .encode, for one without special tokens), .vocab_size and
    .eot_token, the id put behind each document (None: nothing is). A special token's text in a document is just text.
    `progress(done, total)` counts documents; total is None for a stream of unknown length. Memory: about a
    shard and a document for each side. Earlier shards in `directory` are replaced, and they are gone from the
    first write on. Which side a document is on, see split.py.

    Raises ValueError for no text at all, a text that is not valid Unicode, an id outside the vocabulary, bad arguments.
    """
    texts = ((_checked_text(document), 1.0) for document in documents)
    assigned = assign_sides(texts, val_fraction, seed)
    check_counts(shard_tokens=shard_tokens)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SIDECAR).unlink(missing_ok=True)
    remove_shards(directory)
    writers = {side: SideWriter(directory, side, tokenizer, shard_tokens) for side in SIDES}
    total = len(documents) if isinstance(documents, Sized) else None
    for done, (side, text, _) in enumerate(assigned, start=1):
        writers[side].add([text])
        if progress and (done % 64 == 0 or done == total):
            progress(done, total)
    sides = {side: writer.finish() for side, writer in writers.items()}
    return write_sidecar(directory, tokenizer, sides, val_fraction, seed)


def write_sidecar(directory: Path, tokenizer: Any, sides: dict[str, dict], val_fraction: float, seed: int,
                  header: bool = False, **more: Any) -> dict:
    """Write shards.json, the last file of a set, and return it. sides: of SideWriter.finish; more: further keys.

    Raises ValueError if a side has no document.
    """
    for side in SIDES:
        if not sides[side]["documents"]:
            raise ValueError(f"no document was drawn for {side}: too few, a low weight, or val_fraction {val_fraction}")
    meta = {"format": FORMAT, "dtype": token_dtype(tokenizer.vocab_size).str,
            "header_bytes": llmc.BYTES if header else 0, "vocab_size": int(tokenizer.vocab_size),
            "eot_token": tokenizer.eot_token, "tokenizer": fingerprint(tokenizer), "seed": seed,
            "val_fraction": val_fraction, "splits": sides, **more}
    meta["blake2b"] = meta_checksum(meta)
    write_json(directory / SIDECAR, meta, indent=1)
    return meta


def remove_shards(directory: Path, keep: Iterable[str] = ()) -> None:
    """Remove the shards in a folder whose names are not in `keep`, and what a killed writer left."""
    keep = set(keep)
    for path in directory.iterdir():
        if SHARD_NAME.fullmatch(path.name) and path.name not in keep:
            path.unlink()


class SideWriter:
    """Gathers the tokens of one side and writes a file whenever `shard_tokens` of them are there."""

    def __init__(self, directory: Path, side: str, tokenizer: Any, shard_tokens: float = inf, first: int = 0,
                 header: bool = False, threads: int | None = 1):
        """first: number of the first file. header: begin files as llm.c's do. threads: for encoding, None for all."""
        self.directory, self.side, self.tokenizer, self.shard_tokens = directory, side, tokenizer, shard_tokens
        self.first, self.header, self.threads = first, header, threads
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.waiting: list[np.ndarray] = []
        self.waiting_tokens = 0
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0}
        self.files: list[dict] = []

    def add(self, texts: list[str]) -> None:
        """Tokenize documents. Raises ValueError for an id outside the vocabulary."""
        ids = encode_documents(texts, self.tokenizer, self.threads)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise ValueError(f"tokenizer gave ids {ids.min()}..{ids.max()}, outside its vocabulary of "
                             f"{self.tokenizer.vocab_size}")
        self.counts["documents"] += len(texts)
        self.counts["tokens"] += ids.size
        self.counts["bytes"] += sum(len(text.encode()) for text in texts)
        self.waiting.append(ids.astype(self.dtype))
        self.waiting_tokens += ids.size
        if self.waiting_tokens >= self.shard_tokens:
            self._write_full_shards()

    def finish(self) -> dict:
        """Write what is left; returns the side's part of the sidecar, {"documents", "tokens", "bytes", "files"}."""
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
        name = f"{self.side}_{self.first + len(self.files):05d}.bin"
        with atomic_write(self.directory / name, "wb") as file:
            if self.header:
                file.write(llmc.header(len(tokens), self.dtype))
            file.write(tokens.view(np.uint8))
        self.files.append({"name": name, "tokens": len(tokens), "bytes": os.path.getsize(self.directory / name),
                           "blake2b": blake2b(tokens.view(np.uint8)).hexdigest()})


def encode_documents(texts: list[str], tokenizer: Any, threads: int | None) -> np.ndarray:
    """(tokens,) ids of all texts, the end-of-text token behind each; special tokens' texts are just text."""
    if hasattr(tokenizer, "encode_batch_array"):
        ids, ends = tokenizer.encode_batch_array(texts, (), (), threads)
    else:
        encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
        each = [np.asarray(encode(text), np.int64) for text in texts]
        ids, ends = np.concatenate(each), np.cumsum([0, *map(len, each)])
    return ids if tokenizer.eot_token is None else np.insert(ids, ends[1:], tokenizer.eot_token)


def _checked_text(document: tuple[str, str] | str) -> str:
    name, text = (document[:40], document) if isinstance(document, str) else document
    if not encodable(text):
        raise ValueError(f"document {name!r} holds half a surrogate pair and is no valid Unicode text")
    return text
