"""Deduplication of more text than memory holds: which documents to keep, why the others go, and a report of it.

The input is read three times, and no text is kept in between:

    1. sign     a digest of every text, and the keys of its bands (minhash.py)      -> table, sorted keys on the disk
       exact    equal digests are one text; the best copy stands for it
       bucket   of the others, those that share a key are pairs to look at          -> sorted pairs on the disk
    2. verify   the shingles of the documents in pairs; their exact similarity      -> clusters, by union-find
       lines    (asked for) lines that stand in many of the documents to be kept
    3. write    the records that are kept, and the report

Each stage is a pure function of the documents' contents, never of their order or of the number of threads, so the same
documents are kept whichever way they come. Of a cluster (documents joined by a chain of similar pairs) the longest is
kept, in UTF-8 bytes; of equally long ones the one whose hash of all its record is least.

Memory: the limit, plus about 100 bytes a document. Disk, beside the output: 16 bytes a document and band, 32 a document,
and 8 for each distinct shingle of the documents in pairs.
"""
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...storage.atomic import atomic_write, write_json
from ...tokenizer.fast import count_threads
from . import stages as duplicates, minhash
from ..sources import documents as extract
from .stages import EXACT, KEPT, LINES, TABLE, Options, Written
from .external_sort import ExternalSort
from ..batches import batched, check_paths

BATCH_BYTES, BATCH_DOCUMENTS = 2**23, 2**14     # of text that is handed to the threads together
PAIRS = 2**16               # verified together


def dedup(inputs: Iterable[str | os.PathLike], output: str | os.PathLike, options: Options = Options(),
          progress: Callable[[int, int, str], None] | None = None) -> dict:
    """Write the documents of `inputs` (as extract.read_records reads them) that are kept to `output`, a .jsonl file.

    Returns the report, also written to `report_path(output)`: counts and bytes by reason, clusters. Both files appear
    when they are whole; an earlier output stays until then. `progress(done, total, stage)` counts bytes of text.

    Raises FileNotFoundError for a missing input, ValueError when nothing is usable, when the output is among the inputs
    or when these change meanwhile, OSError as the file system does.
    """
    inputs, output = check_paths(inputs, output)
    with workspace(output) as folder:
        stages = Stages(inputs, options, folder, progress)
        table, found = sign(stages)
        parents = np.arange(len(table))
        state = exact(table, stages, parents)
        looked_at = near(stages, table, state, parents, found) if options.lsh else {}
        repeated = repeated_lines(stages, table, state) if options.lines else None
        report = write(stages, output, table, state, parents, repeated)
    return finish(report, output, options, stages.report, looked_at)


def finish(report: dict, output: Path, options: Options, read: extract.Report, looked_at: dict) -> dict:
    """Complete the report and write it."""
    report |= {"options": duplicates.described(options), "input": asdict(read), "pairs": looked_at}
    write_json(report_path(output), report, indent=1, ensure_ascii=False)
    return report


def report_path(output: str | os.PathLike) -> Path:
    return Path(output).with_suffix(".report.json")


@contextmanager
def workspace(output: Path):
    """A folder beside the output for what does not fit into memory; those of runs that were killed are removed."""
    remove_leftovers(output)
    folder = output.parent / f".{output.name}.{os.getpid()}.work"
    folder.mkdir()
    try:
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"the disk is full: {folder.parent} has no room for the sorted keys or the output; "
                          "nothing was written") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(output: Path) -> None:
    """What runs that were killed left beside the output; of an output that another run is at, nothing."""
    folders = list(output.parent.glob(f".{output.name}.*.work"))
    if any(alive(folder.suffixes[-2][1:]) for folder in folders):
        return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for name in (output.name, report_path(output).name):
        for path in output.parent.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


class Stages:
    """What all stages need: inputs, options, the folder for spills, the reader's report and the progress."""

    def __init__(self, inputs, options, folder, progress):
        self.inputs, self.options, self.folder, self.progress = inputs, options, folder, progress
        self.threads = count_threads(options.threads)
        self.report = extract.Report()
        self.passes = 2 + bool(options.lsh and options.verify) + bool(options.lines)
        self.done, self.total = 0, self.passes * sum(map(file_bytes, inputs))

    def batches(self, stage: str, table: np.ndarray | None = None) -> Iterator[tuple[int, list[tuple[str, str, dict]]]]:
        """Yield (number of the first, [(name, text, record)]); from the second time on compared with the table."""
        records = extract.read_records(self.inputs, self.report if table is None else extract.Report(), self.options.field)
        first = 0
        for batch in batches(records):
            sizes = [extract.utf8_length(text) for _, text, _ in batch]
            if table is not None and table["bytes"][first:first + len(batch)].tolist() != sizes:
                raise ValueError("the input changed while it was read")
            self.done += sum(sizes)
            if self.progress:
                self.progress(self.done, max(self.total, self.done), stage)
            yield first, batch
            first += len(batch)
        if table is not None and first != len(table):
            raise ValueError("the input changed while it was read")


def batches(records: Iterable[tuple[str, str, dict]]) -> Iterator[list[tuple[str, str, dict]]]:
    """Records that are worked on together."""
    return batched(records, lambda record: len(record[1]), BATCH_BYTES, BATCH_DOCUMENTS)


def file_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names
               if name.lower().endswith(extract.SUFFIXES) and os.path.exists(os.path.join(folder, name)))


# ---- the stages, in their order

def sign(stages: Stages) -> tuple[np.ndarray, ExternalSort]:
    """The table, (documents,) of TABLE mapped from the disk, and the (band key, document) pairs."""
    path = stages.folder / "table"
    keys = ExternalSort(stages.folder, "keys", stages.options.memory // 2)
    with open(path, "wb") as file:
        for first, batch in stages.batches("signing"):
            file.write(duplicates.table_rows(batch, stages.options.field).data)
            if stages.options.lsh:
                band_keys, documents = duplicates.sign_batch(batch, stages.options, stages.threads)
                keys.add(band_keys, first + documents)
    return np.memmap(path, TABLE, "r"), keys


def exact(table: np.ndarray, stages: Stages, parents: np.ndarray) -> np.ndarray:
    """(documents,) uint8: KEPT or EXACT; copies are joined to the best of them in `parents`."""
    digests = ExternalSort(stages.folder, "digests", stages.options.memory // 2)
    for start in range(0, len(table), PAIRS):
        part = table["digest"][start:start + PAIRS, 0]
        digests.add(part, np.arange(start, start + len(part)))
    state = np.zeros(len(table), np.uint8)
    for first_words, documents in digests.ranges():
        documents = repeated(first_words, documents).astype(np.int64)
        copies = duplicates.copies_of(documents, table[documents])
        state[copies[:, 1]] = EXACT
        minhash.unite(parents, copies)
    return state


def repeated(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values whose key, in ascending order, is that of a neighbour too."""
    same = keys[1:] == keys[:-1]
    return values[np.append(same, False) | np.insert(same, 0, False)]


def near(stages: Stages, table: np.ndarray, state: np.ndarray, parents: np.ndarray, keys: ExternalSort) -> dict:
    """Marks all but the best of each cluster as NEAR, joins them in `parents`; returns how many pairs were looked at."""
    pairs, wanted = candidate_pairs(stages, table, state, keys)
    similarity = exact_similarity(stages, table, wanted) if stages.options.verify and wanted.any() else None
    counts = {"candidates": 0, "similar": 0}
    for part in distinct_pairs(pairs):
        similar = part[similarity(part) >= stages.options.threshold] if similarity else part
        counts["candidates"] += len(part)
        counts["similar"] += len(similar)
        minhash.unite(parents, similar)
    duplicates.mark_near(table, state, parents)
    return counts


def candidate_pairs(stages: Stages, table: np.ndarray, state: np.ndarray,
                    keys: ExternalSort) -> tuple[ExternalSort, np.ndarray]:
    """Pairs of documents that share a band, repeats included, and (documents,) bool: which are in one."""
    pairs = ExternalSort(stages.folder, "pairs", stages.options.memory // 2)
    wanted = np.zeros(len(table), bool)
    for band_keys, documents in keys.ranges():
        documents = documents.astype(np.int64)
        unique = state[documents] == KEPT
        found = duplicates.bucket_pairs(band_keys[unique], documents[unique], table[documents[unique]])
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


def exact_similarity(stages: Stages, table: np.ndarray, wanted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Spill the shingles of the wanted documents; returns the function (pairs, 2) -> (pairs,) Jaccard similarity."""
    path, lengths = stages.folder / "shingles", [np.zeros(1, np.int64)]
    with open(path, "wb") as file:
        for first, batch in stages.batches("verifying", table):
            texts = [text for number, (_, text, _) in enumerate(batch, first) if wanted[number]]
            hashes, offsets = minhash.shingle_sets(texts, stages.options.lsh, stages.threads)
            file.write(hashes.data)
            lengths.append(np.diff(offsets))
    offsets, place = np.cumsum(np.concatenate(lengths)), np.cumsum(wanted) - 1

    def similarity(pairs: np.ndarray) -> np.ndarray:
        return minhash.similarities(np.memmap(path, np.uint64, "r"), offsets, place[pairs], stages.threads)
    return similarity


def repeated_lines(stages: Stages, table: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(lines,) uint64, sorted: hashes of the lines that stand in more than options.lines of the kept documents."""
    lines = ExternalSort(stages.folder, "lines", stages.options.memory // 2)
    for first, batch in stages.batches("lines", table):
        hashes = duplicates.line_hashes(batch, state[first:first + len(batch)] == KEPT, stages.options)
        lines.add(hashes, np.zeros(len(hashes), np.uint64))
    repeated = (duplicates.frequent(hashes, stages.options) for hashes, _ in lines.ranges())
    return np.concatenate([np.empty(0, np.uint64), *repeated])


def write(stages: Stages, output: Path, table: np.ndarray, state: np.ndarray, parents: np.ndarray,
          repeated: np.ndarray | None) -> dict:
    """Write the kept records; returns the report's counts, clusters and examples."""
    examples = duplicates.example_clusters(table, parents)
    quoted = {number for cluster in examples for number in cluster["members"]}
    repeated = None if repeated is None else set(repeated.tolist())

    def outcomes():
        for first, batch in stages.batches("writing", table):
            yield duplicates.outcome(batch, first, state[first:first + len(batch)] == KEPT, repeated, quoted, stages.options)
    return write_outcomes(outcomes(), output, table, state, parents, examples)


def write_outcomes(outcomes: Iterable[Written], output: Path, table: np.ndarray, state: np.ndarray, parents: np.ndarray,
                   examples: list[dict]) -> dict:
    """Write what they hold, in their order; returns the report's counts, clusters and examples."""
    cut, quotes = 0, {}
    with atomic_write(output) as file:
        for found in outcomes:
            file.writelines(found.lines)
            state[found.emptied] = LINES
            cut += found.cut
            quotes |= found.quotes
        for cluster in examples:
            cluster["members"] = [quotes[number] for number in cluster["members"]]
        return duplicates.summary(table, state, parents) | {"line_characters_removed": cut, "examples": examples}


def page(report: dict, output: str | os.PathLike) -> str:
    """The report in a few lines."""
    read, kept = report["read"], report["kept"]
    head = (f"kept {kept['documents']:,} of {read['documents']:,} documents, {kept['bytes'] / 1e6:,.2f} of "
            f"{read['bytes'] / 1e6:,.2f} MB, in {output}")
    lines = [head] + [f"    {reason + 's':<22}{size['documents']:>12,} documents {size['bytes'] / 1e6:>12,.2f} MB"
                      for reason, size in report["dropped"].items() if size["documents"]]
    if report["pairs"]:
        lines.append(f"    {report['pairs']['candidates']:,} pairs shared a band, {report['pairs']['similar']:,} were similar")
    skipped = sum(report["input"]["skipped"].values())
    lines += [f"    {skipped} inputs skipped: {report['input']['skipped']}"] * bool(skipped)
    return "\n".join([*lines, f"report in {report_path(output)}"])
