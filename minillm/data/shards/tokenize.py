"""Documents to shards, for corpora that take hours: parallel, and a run that is killed is resumed.

The stream of documents is cut into chunks of about CHUNK_BYTES, always at the same places. A chunk becomes at most two
files, its training and its validation tokens, and then a note with its counts and a digest of its documents; what has a
note is done. So a run that starts again reads, but does not tokenize, what the last one finished, and no document is
lost or written twice; an input that changed in between is noticed by the digest, and its chunk is written again.

A source may have a weight, the number of times its training documents are read: 2 repeats each, 0.5 takes every second
one (by hash). Validation documents count once. The side of a document is decided by its text (split.py): run
`minillm data dedup` before, then no near-duplicate is on the other side.
"""
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path

from ...storage.atomic import AnyPath, write_json
from ...storage.lock import exclusive
from ...tokenizer import Tokenizer
from ...tokenizer.chat_template import save_tokenizer
from ..batches import batched
from ..executors import Here, in_order, workers
from ..sources.files import read_documents
from ..sources.report import Report
from .format import SIDECAR, SIDES, fingerprint
from .split import assign_sides
from .write import SideWriter, remove_shards, write_sidecar

CHUNK_BYTES = 2 ** 26


def tokenize(sources: list[tuple[Sequence[AnyPath], float]], tokenizer: Tokenizer, directory: AnyPath,
             val_fraction: float = 0.05, seed: int = 0, header: bool = False, threads: int | None = None,
             field: str = "text", chunk_bytes: int = CHUNK_BYTES, scheduler: str | None = None,
             progress: Callable | None = None, all_text: bool = False) -> dict:
    """Write the documents of `sources` into shards; returns what shards.json holds.

    sources: list of (paths, weight). header: begin each file as llm.c's do (llmc.py). threads: for encoding, None for
    one a core. scheduler: of Dask, an address or "local", which then works on several chunks at once; all its workers
    must see `directory`. all_text: of web pages, not their main text alone. progress(done, total, text) counts bytes of
    text; total is that of the input files.
    Raises ValueError for bad weights, too little text, or weights that leave a side no document; FileNotFoundError.
    """
    directory, report = Path(directory), Report()
    for _, weight in sources:
        if not 0 < weight < float("inf"):
            raise ValueError(f"a weight must be above 0: got {weight}")
    texts = ((text, weight) for paths, weight in sources
             for _, text in read_documents(paths, report, field, all_text))
    chunks = batched(assign_sides(texts, val_fraction, seed), text_bytes, chunk_bytes)
    with exclusive(directory):
        (directory / SIDECAR).unlink(missing_ok=True)
        save_tokenizer(tokenizer, directory)
        load_tokenizer.cache_clear()
        settings = [fingerprint(tokenizer), val_fraction, seed, header]
        notes = write_chunks(chunks, directory, settings, threads, scheduler, progress)
        sides = {side: merged([note[side] for note in notes]) for side in SIDES}
        remove_shards(directory, keep=[file["name"] for side in SIDES for file in sides[side]["files"]])
        meta = write_sidecar(directory, tokenizer, sides, val_fraction, seed, header, source=vars(report))
        for path in directory.glob("chunk_[0-9][0-9][0-9][0-9][0-9].json"):
            path.unlink()
    return meta


def write_chunks(chunks: Iterable[list], directory: Path, settings: list, threads: int | None, scheduler: str | None,
                 progress: Callable | None) -> list[dict]:
    """Write the (side, text, weight) of each chunk, but for those that an earlier run has finished; their notes."""
    def tasks() -> Iterator[tuple[None, Future]]:
        read = 0
        for number, chunk in enumerate(chunks):
            read += sum(map(text_bytes, chunk))
            note = done_before(directory, number, digest_of(chunk, settings))
            yield None, (Here().submit(dict, note) if note else
                         pool.submit(write_chunk, directory, number, chunk, threads, settings))
            if progress:
                progress(read, read, f"{number + 1} chunks")

    with workers(None if scheduler else 1, scheduler) as (pool, width):
        return [note for _, note in in_order(tasks(), 2 * width)]


def text_bytes(document: tuple) -> int:
    """UTF-8 bytes of a (side, text, weight). Where chunks are cut depends on the texts alone."""
    return len(document[1].encode())


def digest_of(chunk: list, settings: list) -> str:
    """A hash of the documents and of all that decides what becomes of them."""
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    for side, text, weight in chunk:
        data = text.encode()
        digest.update(f"{len(data)} {side} {weight} ".encode())
        digest.update(data)
    return digest.hexdigest()


def note_path(directory: Path, number: int) -> Path:
    return directory / f"chunk_{number:05d}.json"


def done_before(directory: Path, number: int, digest: str) -> dict | None:
    """The note of a chunk that an earlier run finished, or None."""
    path = note_path(directory, number)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        whole = all((directory / f["name"]).stat().st_size == f["bytes"] for side in SIDES for f in note[side]["files"])
        return note if whole and note["digest"] == digest else None
    except (OSError, ValueError, KeyError):
        return None


def write_chunk(directory: Path, number: int, chunk: list, threads: int | None, settings: list) -> dict:
    """Tokenize a chunk, write its files and then its note, which is returned. The tokenizer is that of `directory`."""
    tokenizer, (_, _, seed, header) = load_tokenizer(str(directory)), settings
    note: dict = {"digest": digest_of(chunk, settings)}
    texts: dict[str, list] = {side: [] for side in SIDES}
    for side, text, weight in chunk:
        texts[side] += [text] * (repeats(text, weight, seed) if side == "train" else 1)
    for side in SIDES:
        note[side] = write_side(directory, side, number, texts[side], tokenizer, header, threads)
    write_json(note_path(directory, number), note)
    return note


@lru_cache(1)
def load_tokenizer(directory: str) -> Tokenizer:
    return Tokenizer.from_pretrained(directory)


def repeats(text: str, weight: float, seed: int) -> int:
    """How often a document is read: the whole part of the weight, and once more with the probability of the rest."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"weight %d" % seed).digest()
    return int(weight) + (int.from_bytes(digest, "little") < (weight - int(weight)) * 2 ** 64)


def write_side(directory: Path, side: str, number: int, texts: list[str], tokenizer: Tokenizer, header: bool,
               threads: int | None) -> dict:
    """At most one file of tokens; {"documents", "tokens", "bytes", "files"}."""
    writer = SideWriter(directory, side, tokenizer, first=number, header=header, threads=threads)
    if texts:
        writer.add(texts)
    return writer.finish()


def merged(notes: list[dict]) -> dict:
    """The part of the sidecar that says what all chunks hold of a side."""
    counts = {key: sum(note[key] for note in notes) for key in ("documents", "tokens", "bytes")}
    return {**counts, "files": [file for note in notes for file in note["files"]]}
