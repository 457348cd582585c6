"""Deduplication on more than one machine, as tasks of Dask (extra `dask`).

    sign      part -> its rows of the table; its band keys, cut into buckets by their upper bits
    bucket    the same bucket of every part (the shuffle) -> pairs of documents
    shingles  part -> the sets of its documents in pairs;  verify  two parts' sets -> similar pairs
    lines     part -> its lines' hashes, cut into buckets;  frequent  bucket -> hashes of the repeated ones
    outcome   part -> its lines of the output

A part is a file of the input. Every task is a pure function of its parts, so when a worker dies Dask runs what was lost
again, elsewhere, and the result is the same, byte for byte, as that of one process. All workers must see the input
under the same paths. The caller alone writes, part after part; it holds the table (32 bytes a document) and the pairs.
"""
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..batches import Records, check_paths
from ..executors import connected, in_order
from ..sources.files import find_files, read_file
from ..sources.report import EXAMPLES, Report
from . import clusters, minhash
from .lines import Repeated, frequent_lines, line_hashes
from .pipeline import numbered_batches
from .report import Written, complete_report, example_clusters, outcome, write_outcomes
from .table import EXACT, KEPT, TABLE, DedupOptions, table_rows

ENTRY = np.dtype([("key", "<u8"), ("document", "<i8"), ("bytes", "<i8"), ("tie", "<u8")])
MOST_BUCKETS = 64
WINDOW = 2                  # finished parts a worker may wait for the writer with


def dedup_on_dask(inputs: Iterable[str | os.PathLike], output: str | os.PathLike,
                  options: DedupOptions = DedupOptions(), scheduler: str = "local",
                  progress: Callable[[int, int, str], None] | None = None) -> dict:
    """As `pipeline.dedup`, on the cluster whose Dask scheduler is at this address; "local" starts workers here.

    Raises ImportError without the extra, OSError if no scheduler is at the address, and what `pipeline.dedup` raises.
    """
    inputs, output = check_paths(inputs, output)
    with connected(scheduler, options.threads) as client:
        job = Job(client, inputs, options, progress)
        table = job.sign()
        parents, state = np.arange(len(table)), np.zeros(len(table), np.uint8)
        copies = clusters.copies_of(parents, table)
        state[copies[:, 1]] = EXACT
        minhash.unite(parents, copies)
        looked_at = job.near(table, state, parents) if options.lsh else {}
        repeated = job.repeated_lines(state) if options.lines or options.line_dedup else None
        examples = example_clusters(table, parents)
        report = write_outcomes(job.outcomes(state, repeated, examples), output, table, state, parents, examples)
    return complete_report(report, output, options, job.report, looked_at)


class Job:
    """The parts of a run, and where each one's documents begin, once they are counted."""

    def __init__(self, client: Any, inputs: list[Path], options: DedupOptions, progress: Callable | None) -> None:
        self.client, self.options, self.progress = client, options, progress
        self.report = Report()
        self.parts = [(str(path), str(path.absolute())) for path in find_files(inputs, self.report)]
        self.buckets = min(MOST_BUCKETS, max(1, len(self.parts)))

    def submit(self, function: Callable, *arguments: Any) -> Any:
        return self.client.submit(function, *arguments, pure=False)

    def results(self, futures: list, stage: str) -> Iterator:
        """Their results in order; a future is released when its result has been yielded."""
        for done in range(len(futures)):
            result, futures[done] = futures[done].result(), None
            if self.progress:
                self.progress(done + 1, len(futures), stage)
            yield result

    def buckets_of(self, futures: list) -> Iterator[list]:
        """The shuffle: bucket by bucket, its piece of every part; the futures are of (something, list of buckets)."""
        lists = [self.submit(itemgetter(1), future) for future in futures]
        for bucket in range(self.buckets):
            yield [self.submit(itemgetter(bucket), pieces) for pieces in lists]

    def sign(self) -> np.ndarray:
        """The table; keeps the parts' band keys on the cluster."""
        self.signed = [self.submit(sign_part, part, self.options, self.buckets) for part in self.parts]
        heads = list(self.results([self.submit(itemgetter(0), future) for future in self.signed], "signing"))
        for _, report in heads:
            add_report(self.report, report)
        rows = [rows for rows, _ in heads]
        self.offsets = np.cumsum([0, *map(len, rows)])                      # (parts + 1,) numbers of documents
        if not self.offsets[-1]:
            raise ValueError(f"no usable text in {len(self.parts)} files: {self.report}")
        self.table = np.concatenate(rows)
        self.sizes = [part["bytes"] for part in rows]
        return self.table

    def near(self, table: np.ndarray, state: np.ndarray, parents: np.ndarray) -> dict:
        """As pipeline.mark_near_duplicates."""
        everyone = self.submit(identity, state)          # a task's result, unlike scattered data, can be made again
        found = [self.submit(pairs_of_bucket, pieces, self.offsets, everyone)
                 for pieces in self.buckets_of(self.signed)]
        del self.signed
        pairs = np.concatenate([np.empty((0, 2), np.int64), *self.results(found, "buckets")])
        pairs = np.unique(pairs, axis=0)
        similar = self.verified(pairs) if self.options.verify else pairs
        minhash.unite(parents, similar)
        clusters.mark_near(table, state, parents)
        return {"candidates": len(pairs), "similar": len(similar)}

    def verified(self, pairs: np.ndarray) -> np.ndarray:
        """(pairs, 2) those of them that are similar enough."""
        part_of = np.searchsorted(self.offsets, pairs, side="right") - 1      # (pairs, 2)
        wanted = [np.unique(pairs[part_of == part]) for part in range(len(self.parts))]
        sets = {part: self.submit(sets_of_part, self.parts[part], documents - self.offsets[part], self.sizes[part],
                                  self.options) for part, documents in enumerate(wanted) if len(documents)}
        order = np.lexsort((part_of[:, 1], part_of[:, 0]))
        pairs, part_of = pairs[order], part_of[order]
        bounds = [0, *(np.flatnonzero((part_of[1:] != part_of[:-1]).any(axis=1)) + 1).tolist(), len(pairs)]
        checks, together = [], []
        for start, end in pairwise(bounds) if len(pairs) else ():
            left, right = part_of[start].tolist()
            places = np.column_stack([np.searchsorted(wanted[left], pairs[start:end, 0]),
                                      np.searchsorted(wanted[right], pairs[start:end, 1])])
            checks.append(self.submit(similar_of_parts, sets[left], sets[right], places, self.options))
            together.append(pairs[start:end])
        found = [chosen[similar] for chosen, similar in zip(together, self.results(checks, "verifying"))]
        return np.concatenate([np.empty((0, 2), np.int64), *found])

    def repeated_lines(self, state: np.ndarray) -> Repeated:
        futures = [self.submit(lines_of_part, part, start, state[start:end] == KEPT, sizes, self.options, self.buckets)
                   for part, (start, end), sizes in zip(self.parts, pairwise(self.offsets.tolist()), self.sizes)]
        found = [self.submit(frequent_of_bucket, pieces, self.options) for pieces in self.buckets_of(futures)]
        return Repeated.joined(list(self.results(found, "lines")))

    def outcomes(self, state: np.ndarray, repeated: Repeated | None, examples: list[dict]) -> Iterator[Written]:
        """Part after part, of which only a few are there at a time."""
        repeated = self.submit(identity, repeated)
        quoted = {number for cluster in examples for number in cluster["members"]}
        width = max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))
        tasks = ((None, self.submit(outcome_of_part, part, start, state[start:end] == KEPT, repeated,
                                    {number for number in quoted if start <= number < end}, sizes, self.options))
                 for part, (start, end), sizes in zip(self.parts, pairwise(self.offsets.tolist()), self.sizes))
        for _, found in in_order(tasks, WINDOW * width):
            yield from found


# ---- the tasks

def identity(value: Any) -> Any:
    return value


def batches_of(part: tuple[str, str], options: DedupOptions, report: Report,
               sizes: np.ndarray | None = None) -> Iterator[tuple[int, Records]]:
    """(number of the first in the part, batch) of a part: the path that names are to show, and the one to open.

    sizes: (documents,) bytes of the documents when they were signed, which they must still have.
    """
    shown, path = part
    records = read_file(Path(path), report, options.field, options.all_text)
    for first, batch, _ in numbered_batches(shown_as(shown, path, records), sizes):
        yield first, batch


def shown_as(shown: str, path: str, records: Iterator) -> Iterator[tuple[str, str, dict]]:
    for name_here, text, record in records:
        name = shown + name_here.removeprefix(path)
        if record.get("source") == name_here:                   # a text file's
            record["source"] = name
        yield name, text, record


def cut(entries: np.ndarray, keys: np.ndarray, buckets: int) -> list[np.ndarray]:
    """Into buckets by the upper half of the keys (n,) uint64."""
    bucket = (keys >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
    return [entries[bucket == number] for number in range(buckets)]


def sign_part(part: tuple[str, str], options: DedupOptions, buckets: int) -> tuple[tuple, list[np.ndarray]]:
    """((rows of the table, reader's report), a list of ENTRY arrays for the buckets; documents count from 0)."""
    report, rows, entries = Report(), [np.empty(0, TABLE)], [np.empty(0, ENTRY)]
    for first, batch in batches_of(part, options, report):
        fresh = table_rows(batch, options.field)
        rows.append(fresh)
        if options.lsh:
            keys, places = clusters.sign_batch(batch, options.lsh, 1)
            entry = np.empty(len(keys), ENTRY)
            entry["key"], entry["document"] = keys, first + places
            entry["bytes"], entry["tie"] = fresh["bytes"][places], fresh["tie"][places]
            entries.append(entry)
    rename(report, *part)
    together = np.concatenate(entries)
    return (np.concatenate(rows), report), cut(together, together["key"], buckets)


def pairs_of_bucket(pieces: list[np.ndarray], offsets: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(pairs, 2) int64, each once."""
    entries = np.concatenate(pieces)
    documents = entries["document"] + np.repeat(offsets[:-1], [len(piece) for piece in pieces])
    unique = state[documents] == KEPT
    entries, documents = entries[unique], documents[unique]
    order = np.argsort(entries["key"], kind="stable")
    found = clusters.bucket_pairs(entries["key"][order], documents[order], entries[order])
    return np.unique(found[found[:, 0] != found[:, 1]], axis=0)


def sets_of_part(part: tuple[str, str], wanted: np.ndarray, sizes: np.ndarray, options: DedupOptions) -> tuple:
    """The shingle sets of the wanted documents (numbers in the part, ascending), as minhash.shingle_sets gives them."""
    assert options.lsh
    chosen = np.isin(np.arange(len(sizes)), wanted)
    hashes, lengths = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for first, batch in batches_of(part, options, Report(), sizes):
        texts = [text for (_, text, _), take in zip(batch, chosen[first:]) if take]
        found, offsets = minhash.shingle_sets(texts, options.lsh)
        hashes.append(found)
        lengths.append(np.diff(offsets))
    return np.concatenate(hashes), np.cumsum(np.concatenate(lengths))


def similar_of_parts(left: tuple, right: tuple, places: np.ndarray, options: DedupOptions) -> np.ndarray:
    """(pairs,) bool; places (pairs, 2) in the sets of the left and of the right part."""
    hashes = np.concatenate([left[0], right[0]])
    offsets = np.concatenate([left[1], left[1][-1] + right[1]])             # an empty set stands between the parts
    return minhash.similarities(hashes, offsets, places + [0, len(left[1])]) >= options.threshold


def lines_of_part(part: tuple[str, str], start: int, chosen: np.ndarray, sizes: np.ndarray, options: DedupOptions,
                  buckets: int) -> tuple[None, list[np.ndarray]]:
    found = [np.column_stack([hashes, documents.astype(np.uint64)])
             for first, batch in batches_of(part, options, Report(), sizes)
             for hashes, documents in [line_hashes(batch, start + first, chosen[first:first + len(batch)], options)]]
    entries = np.concatenate([np.empty((0, 2), np.uint64), *found])
    return None, cut(entries, entries[:, 0], buckets)


def frequent_of_bucket(pieces: list[np.ndarray], options: DedupOptions) -> Repeated:
    hashes, documents = np.concatenate(pieces).T
    return frequent_lines(hashes, documents, options)


def outcome_of_part(part: tuple[str, str], start: int, kept: np.ndarray, repeated: Repeated | None, quoted: set[int],
                    sizes: np.ndarray, options: DedupOptions) -> list[Written]:
    return [outcome(batch, start + first, kept[first:first + len(batch)], repeated, quoted, options)
            for first, batch in batches_of(part, options, Report(), sizes)]


def rename(report: Report, shown: str, path: str) -> None:
    """The examples of files by the path that names are to show."""
    report.examples = {reason: [shown + name.removeprefix(path) for name in names]
                       for reason, names in report.examples.items()}


def add_report(total: Report, more: Report) -> None:
    total.documents += more.documents
    total.bytes += more.bytes
    for reason, count in more.skipped.items():
        total.skipped[reason] = total.skipped.get(reason, 0) + count
        total.examples[reason] = (total.examples.get(reason, []) + more.examples[reason])[:EXAMPLES]
