"""Documents to shards, for corpora that take hours: parallel, and a run that is killed goes on where it was.

The stream of documents is cut into chunks of about CHUNK_BYTES, always at the same places. A chunk becomes at most two
files, its training and its validation tokens, and then a note with its counts and a digest of its documents; what has a note
is done. So a run that starts again reads, but does not tokenize, what the last one finished, and no document is lost or
written twice; an input that changed in between is noticed by the digest, and its chunk made anew.

A source may have a weight, the number of times its training documents are read: 2 repeats each, 0.5 takes every second one
(by hash). Validation documents count once. The side of a document is decided by its text (shards.split_of): run
`minillm data dedup` before, then no near-duplicate stands on the other side.
"""
import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...storage.atomic import atomic_write, write_json
from ...tokenizer import Tokenizer
from ..sources import documents as extract
from . import llmc, format as shards
from ..cleaning.clean import Here
from ..batches import batched

CHUNK_BYTES = 2 ** 26


def tokenize(sources, tokenizer, directory, val_fraction=0.05, seed=0, header=False, threads=None, field="text",
             chunk_bytes=CHUNK_BYTES, scheduler=None, progress=None) -> dict:
    """Write the documents of `sources` into shards; returns what shards.json holds (see shards.write_shards).

    sources: list of (paths, weight). header: begin each file as llm.c's do (llmc.py). threads: for encoding, None for
    one a core. scheduler: of Dask, an address or "local" (see cluster.py), which then works on several chunks at once; all its
    workers must see `directory`. progress(done, total, text) counts bytes of text; total is that of the input files.
    Raises ValueError for bad weights, or if a side gets no document; FileNotFoundError.
    """
    directory, report = Path(directory), extract.Report()
    for _, weight in sources:
        if not 0 < weight < float("inf"):
            raise ValueError(f"a weight must be above 0: got {weight}")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / shards.SIDECAR).unlink(missing_ok=True)
    tokenizer.save(directory)
    load_tokenizer.cache_clear()
    settings = [shards.fingerprint(tokenizer), val_fraction, seed, header]
    notes, read = [], 0
    with workers(scheduler) as (pool, width):
        for number, chunk in enumerate(batched(documents(sources, report, field), text_bytes, chunk_bytes)):
            read += sum(map(text_bytes, chunk))
            done = done_before(directory, number, digest_of(chunk, settings))
            notes.append(done or pool.submit(write_chunk, directory, number, chunk, threads, settings))
            if len(notes) > 2 * width:
                notes[-1 - 2 * width] = finished(notes[-1 - 2 * width])
            if progress:
                progress(read, read, f"{len(notes)} chunks")
        notes = list(map(finished, notes))
    meta = sidecar(notes, tokenizer, val_fraction, seed, header) | {"source": vars(report)}
    remove_leftovers(directory, len(notes))
    write_json(directory / shards.SIDECAR, meta, indent=1)
    for number in range(len(notes)):
        note_path(directory, number).unlink()
    return meta


@contextmanager
def workers(scheduler):
    """(an executor, how many work at once)."""
    if scheduler is None:
        yield Here(), 1
        return
    from ..cluster import executor
    with executor(scheduler) as found:
        yield found


def text_bytes(document):
    """UTF-8 bytes of a (text, weight). Where chunks are cut depends on the texts alone."""
    return len(document[0].encode())


def finished(note):
    """The note of a chunk, or that of the future that writes it."""
    return note if isinstance(note, dict) else note.result()


def documents(sources, report, field) -> Iterable[tuple[str, float]]:
    """(text, weight) of every document of every source."""
    for paths, weight in sources:
        for _, text in extract.read_documents(paths, report, field):
            yield text, weight


def digest_of(chunk, settings):
    """Of the documents and of all that decides what becomes of them."""
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    for text, weight in chunk:
        data = text.encode()
        digest.update(f"{len(data)} {weight} ".encode())
        digest.update(data)
    return digest.hexdigest()


def note_path(directory, number):
    return directory / f"chunk_{number:05d}.json"


def done_before(directory, number, digest):
    """The note of a chunk that an earlier run finished, or None."""
    path = note_path(directory, number)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        whole = all((directory / f["name"]).stat().st_size == f["bytes"] for side in shards.SPLITS for f in note[side]["files"])
        return note if whole and note["digest"] == digest else None
    except (OSError, ValueError, KeyError):
        return None


def write_chunk(directory, number, chunk, threads, settings):
    """Tokenize a chunk, write its files and then its note, which is returned. The tokenizer is that of `directory`."""
    tokenizer, (_, val_fraction, seed, header) = load_tokenizer(str(directory)), settings
    note = {"digest": digest_of(chunk, settings)}
    sides = {side: [] for side in shards.SPLITS}
    for text, weight in chunk:
        side = shards.split_of(text, val_fraction, seed)
        sides[side] += [text] * (times(text, weight, seed) if side == "train" else 1)
    for side, texts in sides.items():
        note[side] = write_side(directory, side, number, texts, tokenizer, header, threads)
    write_json(note_path(directory, number), note)
    return note


@lru_cache(1)
def load_tokenizer(directory):
    return Tokenizer.from_pretrained(directory)


def times(text, weight, seed):
    """How often a document is read: the whole part of the weight, and once more with the chance of the rest."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"weight %d" % seed).digest()
    return int(weight) + (int.from_bytes(digest, "little") < (weight - int(weight)) * 2 ** 64)


def write_side(directory, side, number, texts, tokenizer, header, threads):
    """One file of tokens, an end-of-text token after each document; {"documents", "tokens", "bytes", "files"}."""
    if not texts:
        return {"documents": 0, "tokens": 0, "bytes": 0, "files": []}
    ids, ends = tokenizer.encode_batch_array(texts, (), (), threads)             # special tokens' texts are just text
    if tokenizer.eot_token is not None:
        ids = np.insert(ids, ends[1:], tokenizer.eot_token)
    name = f"{side}_{number:05d}.bin"
    data = ids.astype(np.dtype("<u2" if tokenizer.vocab_size <= 2 ** 16 else "<u4"))
    with atomic_write(directory / name, "wb") as file:
        if header:
            file.write(llmc.header(len(data), data.dtype))
        file.write(data.view(np.uint8))
    size = os.path.getsize(directory / name)
    digest = hashlib.blake2b(data.view(np.uint8), digest_size=16).hexdigest()
    return {"documents": len(texts), "tokens": len(data), "bytes": sum(len(text.encode()) for text in texts),
            "files": [{"name": name, "tokens": len(data), "bytes": size, "blake2b": digest}]}


def sidecar(notes, tokenizer, val_fraction, seed, header):
    """What shards.json holds."""
    splits = {}
    for side in shards.SPLITS:
        splits[side] = {key: sum(note[side][key] for note in notes) for key in ("documents", "tokens", "bytes")}
        splits[side]["files"] = [file for note in notes for file in note[side]["files"]]
        if not splits[side]["documents"]:
            raise ValueError(f"no document was drawn for {side}: there are too few, or val_fraction is {val_fraction}")
    return {"format": shards.FORMAT, "dtype": "<u2" if tokenizer.vocab_size <= 2 ** 16 else "<u4",
            "header_bytes": llmc.BYTES if header else 0, "vocab_size": tokenizer.vocab_size,
            "eot_token": tokenizer.eot_token, "tokenizer": shards.fingerprint(tokenizer), "seed": seed,
            "val_fraction": val_fraction, "splits": splits}


def remove_leftovers(directory, count):
    """Files of chunks that an earlier run had and this one has not."""
    for path in directory.glob("*_[0-9][0-9][0-9][0-9][0-9].*"):
        name, _, number = path.stem.rpartition("_")
        if name in ("chunk", *shards.SPLITS) and int(number) >= count:
            path.unlink()
