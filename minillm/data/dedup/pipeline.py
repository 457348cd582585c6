"""Deduplication of more text than memory holds: which documents to keep, why the others go, and a report of it.

The input is read three times, and no text is kept in between:

    1. sign     a digest of every text, and the keys of its bands (minhash.py)      -> table, sorted keys on the disk
       exact    equal digests are one text; the best copy stands for it
       bucket   of the others, those that share a key are candidate pairs           -> sorted pairs on the disk
    2. verify   the shingles of the documents in pairs; their exact similarity      -> clusters, by union-find
       lines    (asked for) lines that stand in many of the documents to be kept
    3. write    the records that are kept, and the report

Each stage is a pure function of the documents' contents, never of their order (but for line_dedup: the first copy of a
line stays) or of the number of threads. Of a cluster
(documents joined by a chain of similar pairs) the one that table.by_rank puts first is kept.

Memory: the limit, plus about 100 bytes a document and 16 a repeated line. Disk, beside the output: 16 bytes a document
and band, 32 a document, and 8 for each distinct shingle of the documents in pairs.
"""
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...tokenizer.fast import count_threads
from ..batches import Records, batched, check_paths, weight
from ..sources.files import SUFFIXES, read_records
from ..sources.plain_text import utf8_length
from ..sources.report import Report
from . import clusters, minhash
from .external_sort import ExternalSort
from .lines import Repeated, frequent_lines, line_hashes
from .report import Written, complete_report, example_clusters, outcome, write_outcomes
from .table import EXACT, KEPT, TABLE, DedupOptions, table_rows

BATCH_BYTES, BATCH_DOCUMENTS = 2**23, 2**14     # of a batch
PAIRS = 2**16               # verified together


def dedup(inputs: Iterable[str | os.PathLike], output: str | os.PathLike, options: DedupOptions = DedupOptions(),
          progress: Callable[[int, int, str], None] | None = None) -> dict:
    """Write the documents of `inputs` (as files.read_records reads them) that are kept to `output`, a .jsonl file.

    Returns the report, also written to `report_path(output)`: counts and bytes by reason, clusters. Both files appear
    when they are whole; an earlier output stays until then. `progress(done, total, stage)` counts bytes of text.

    Raises FileNotFoundError for a missing input, ValueError when nothing is usable, when the output is among the inputs
    or when these change meanwhile, OSError as the file system does.
    """
    inputs, output = check_paths(inputs, output)
    with workspace(output) as folder:
        passes = Passes(inputs, options, folder, progress)
        table, found = sign_documents(passes)
        parents = np.arange(len(table))
        state = mark_exact_duplicates(table, passes, parents)
        looked_at = mark_near_duplicates(passes, table, state, parents, found) if options.lsh else {}
        repeated = repeated_lines(passes, table, state) if options.lines or options.line_dedup else None
        report = write_kept(passes, output, table, state, parents, repeated)
    return complete_report(report, output, options, passes.report, looked_at)


@contextmanager
def workspace(output: Path) -> Iterator[Path]:
    """A folder beside the output for what does not fit into memory; those of runs that were killed are removed."""
    remove_leftovers(output)
    folder = output.parent / f".{output.name}.{os.getpid()}.work"
    folder.mkdir()
    try:
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"the disk is full: {folder.parent} has no room for the sorted keys or the "
                          "output; nothing was written") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(output: Path) -> None:
    """The folders of runs that were killed; of an output that another run is at, none."""
    folders = list(output.parent.glob(f".{output.name}.*.work"))
    if any(alive(folder.suffixes[-2][1:]) for folder in folders):
        return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def alive(pid: str) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


class Passes:
    """What each pass over the input needs: inputs, options, the folder for spills, the reader's report, progress."""

    def __init__(self, inputs: list[Path], options: DedupOptions, folder: Path, progress: Callable | None) -> None:
        self.inputs, self.options, self.folder, self.progress = inputs, options, folder, progress
        self.threads = count_threads(options.threads)
        self.report = Report()
        self.passes = 2 + bool(options.lsh and options.verify) + bool(options.lines or options.line_dedup)
        self.done, self.total = 0, self.passes * sum(map(file_bytes, inputs))

    def batches(self, stage: str, table: np.ndarray | None = None) -> Iterator[tuple[int, Records]]:
        """Yield (number of the first, [(name, text, record)]); from the second time on compared with the table."""
        records = read_records(self.inputs, self.report if table is None else Report(), self.options.field,
                               self.options.all_text)
        for first, batch, size in numbered_batches(records, None if table is None else table["bytes"]):
            self.done += size
            if self.progress:
                self.progress(self.done, max(self.total, self.done), stage)
            yield first, batch


def numbered_batches(records: Iterable[tuple[str, str, dict]],
                     expected: np.ndarray | None = None) -> Iterator[tuple[int, Records, int]]:
    """Yield (number of the first, records that are handed to the threads together, bytes of their texts).

    expected: (documents,) UTF-8 lengths of the texts when they were signed. Raises ValueError if they have changed.
    """
    first = 0
    for batch in batched(records, weight, BATCH_BYTES, BATCH_DOCUMENTS):
        sizes = [utf8_length(text) for _, text, _ in batch]
        if expected is not None and expected[first:first + len(batch)].tolist() != sizes:
            raise ValueError("the input changed while it was read")
        yield first, batch, sum(sizes)
        first += len(batch)
    if expected is not None and first != len(expected):
        raise ValueError("the input changed while it was read")


def file_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names
               if name.lower().endswith(SUFFIXES) and os.path.exists(os.path.join(folder, name)))


# ---- the passes, in their order

def sign_documents(passes: Passes) -> tuple[np.ndarray, ExternalSort]:
    """The table, (documents,) of TABLE mapped from the disk, and the (band key, document) pairs."""
    path = passes.folder / "table"
    keys = ExternalSort(passes.folder, "keys", passes.options.memory // 2)
    with open(path, "wb") as file:
        for first, batch in passes.batches("signing"):
            file.write(table_rows(batch, passes.options.field).data)
            if passes.options.lsh:
                band_keys, documents = clusters.sign_batch(batch, passes.options.lsh, passes.threads)
                keys.add(band_keys, first + documents)
    return np.memmap(path, TABLE, "r"), keys


def mark_exact_duplicates(table: np.ndarray, passes: Passes, parents: np.ndarray) -> np.ndarray:
    """(documents,) uint8: KEPT or EXACT; copies are joined to the best of them in `parents`."""
    digests = ExternalSort(passes.folder, "digests", passes.options.memory // 2)
    for start in range(0, len(table), PAIRS):
        part = table["digest"][start:start + PAIRS, 0]
        digests.add(part, np.arange(start, start + len(part)))
    state = np.zeros(len(table), np.uint8)
    for first_words, documents in digests.ranges():
        documents = of_repeated_keys(first_words, documents).astype(np.int64)
        copies = clusters.copies_of(documents, table[documents])
        state[copies[:, 1]] = EXACT
        minhash.unite(parents, copies)
    return state


def of_repeated_keys(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values whose key, in ascending order, is that of a neighbour too."""
    same = keys[1:] == keys[:-1]
    return values[np.append(same, False) | np.insert(same, 0, False)]


def mark_near_duplicates(passes: Passes, table: np.ndarray, state: np.ndarray, parents: np.ndarray,
                         keys: ExternalSort) -> dict:
    """Mark all but the best of each cluster as NEAR, join them in `parents`; returns how many pairs were compared."""
    pairs, wanted = candidate_pairs(passes, table, state, keys)
    similarity = exact_similarity(passes, table, wanted) if passes.options.verify and wanted.any() else None
    counts = {"candidates": 0, "similar": 0}
    for part in distinct_pairs(pairs):
        similar = part[similarity(part) >= passes.options.threshold] if similarity else part
        counts["candidates"] += len(part)
        counts["similar"] += len(similar)
        minhash.unite(parents, similar)
    clusters.mark_near(table, state, parents)
    return counts


def candidate_pairs(passes: Passes, table: np.ndarray, state: np.ndarray,
                    keys: ExternalSort) -> tuple[ExternalSort, np.ndarray]:
    """Pairs of documents that share a band, repeats included, and (documents,) bool: which are in one."""
    pairs = ExternalSort(passes.folder, "pairs", passes.options.memory // 2)
    wanted = np.zeros(len(table), bool)
    for band_keys, documents in keys.ranges():
        documents = documents.astype(np.int64)
        unique = state[documents] == KEPT
        found = clusters.bucket_pairs(band_keys[unique], documents[unique], table[documents[unique]])
        wanted[found] = True
        pairs.add(found[:, 0], found[:, 1])
    return pairs, wanted


def distinct_pairs(pairs: ExternalSort) -> Iterator[np.ndarray]:
    """Each pair once, as (up to PAIRS, 2) int64."""
    for left, right in pairs.ranges():
        found = np.column_stack([left, right]).astype(np.int64)
        fresh = np.insert((found[1:] != found[:-1]).any(axis=1), 0, True) & (left != right)
        found = found[fresh]
        for start in range(0, len(found), PAIRS):
            yield found[start:start + PAIRS]


def exact_similarity(passes: Passes, table: np.ndarray, wanted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Spill the shingles of the wanted documents; returns the function (pairs, 2) -> (pairs,) Jaccard similarity."""
    path, lengths = passes.folder / "shingles", [np.zeros(1, np.int64)]
    assert passes.options.lsh
    with open(path, "wb") as file:
        for first, batch in passes.batches("verifying", table):
            texts = [text for number, (_, text, _) in enumerate(batch, first) if wanted[number]]
            hashes, offsets = minhash.shingle_sets(texts, passes.options.lsh, passes.threads)
            file.write(hashes.data)
            lengths.append(np.diff(offsets))
    offsets, place = np.cumsum(np.concatenate(lengths)), np.cumsum(wanted) - 1

    def similarity(pairs: np.ndarray) -> np.ndarray:
        return minhash.similarities(np.memmap(path, np.uint64, "r"), offsets, place[pairs], passes.threads)
    return similarity


def repeated_lines(passes: Passes, table: np.ndarray, state: np.ndarray) -> Repeated:
    """The lines of the kept documents that are to be removed."""
    lines = ExternalSort(passes.folder, "lines", passes.options.memory // 2)
    for first, batch in passes.batches("lines", table):
        lines.add(*line_hashes(batch, first, state[first:first + len(batch)] == KEPT, passes.options))
    return Repeated.joined([frequent_lines(*found, passes.options) for found in lines.ranges()])


def write_kept(passes: Passes, output: Path, table: np.ndarray, state: np.ndarray, parents: np.ndarray,
               repeated: Repeated | None) -> dict:
    """Write the kept records; returns the report's counts, clusters and examples."""
    examples = example_clusters(table, parents)
    quoted = {number for cluster in examples for number in cluster["members"]}

    def outcomes() -> Iterator[Written]:
        for first, batch in passes.batches("writing", table):
            yield outcome(batch, first, state[first:first + len(batch)] == KEPT, repeated, quoted, passes.options)
    return write_outcomes(outcomes(), output, table, state, parents, examples)
