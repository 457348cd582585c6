"""What deduplication writes: the kept records, and a report with counts by reason, clusters and examples of them."""
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...storage.atomic import atomic_write, write_json
from ..batches import Records, finite, json_line
from ..sources.report import Report
from .lines import Repeated, without_lines
from .table import EXACT, KEPT, LINES, NEAR, DedupOptions, by_rank

EXAMPLES, MEMBERS, EXCERPT = 12, 4, 160         # clusters in the report, members of each, characters of each
CURVE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
REASONS = {EXACT: "exact duplicate", NEAR: "near-duplicate", LINES: "only repeated lines"}


@dataclass
class Written:
    """What became of a batch: JSON lines, numbers of documents without a line left, characters cut, {number: quote}."""
    lines: list[str] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)
    cut: int = 0
    quotes: dict[int, dict] = field(default_factory=dict)


def outcome(batch: Records, first: int, kept: np.ndarray, repeated: Repeated | None, quoted: set[int],
            options: DedupOptions) -> Written:
    """What to write of a batch. first: number of its first document; kept: (documents,) bool; repeated: lines."""
    found = Written()
    for number, (name, text, record) in enumerate(batch, first):
        if number in quoted:
            found.quotes[number] = {"name": name, "text": text[:EXCERPT]}
        if not kept[number - first]:
            continue
        if repeated and len(repeated.lines):
            record[options.field] = shorter = without_lines(text, number, repeated, options)
            found.cut += len(text) - len(shorter)
            if not shorter.strip():
                found.emptied.append(number)
                continue
        found.lines.append(json_line(record))
    return found


def summary(table: np.ndarray, state: np.ndarray, parents: np.ndarray) -> dict:
    def size(chosen: np.ndarray) -> dict:
        return {"documents": int(chosen.sum()), "bytes": int(table["bytes"][chosen].sum())}

    sizes = np.bincount(np.bincount(parents))[1:]                       # clusters of 1, 2, 3, ... documents
    return {"read": size(state >= 0), "kept": size(state == KEPT),
            "dropped": {reason: size(state == code) for code, reason in REASONS.items()},
            "clusters": {str(members): int(count) for members, count in enumerate(sizes, 1) if count and members > 1}}


def example_clusters(table: np.ndarray, parents: np.ndarray) -> list[dict]:
    """The largest clusters and, by hash, some others: {"documents": size, "members": numbers, the kept one first}."""
    sizes = np.bincount(parents, minlength=len(parents))
    roots = np.flatnonzero(sizes > 1)
    by_size = roots[np.lexsort((table["tie"][roots], -sizes[roots]))]
    by_hash = roots[np.argsort(table["tie"][roots])]
    chosen = list(dict.fromkeys([*by_size[:EXAMPLES // 2].tolist(), *by_hash[:EXAMPLES].tolist()]))[:EXAMPLES]
    members = np.flatnonzero(np.isin(parents, chosen))
    members = by_rank(table, members, parents[members])
    return [{"documents": int(sizes[root]), "members": members[parents[members] == root][:MEMBERS].tolist()}
            for root in chosen]


def write_outcomes(outcomes: Iterable[Written], output: Path, table: np.ndarray, state: np.ndarray, parents: np.ndarray,
                   examples: list[dict]) -> dict:
    """Write the kept lines, in their order; returns the report's counts, clusters and examples."""
    cut, quotes = 0, dict[int, dict]()
    with atomic_write(output) as file:
        for found in outcomes:
            file.writelines(found.lines)
            state[found.emptied] = LINES
            cut += found.cut
            quotes |= found.quotes
        for cluster in examples:
            cluster["members"] = [quotes[number] for number in cluster["members"]]
        return summary(table, state, parents) | {"line_characters_removed": cut, "examples": examples}


def complete_report(report: dict, output: Path, options: DedupOptions, read: Report, looked_at: dict) -> dict:
    """Add the options, how likely they find pairs of some similarities, and the input; write the report."""
    facts = {name: value for name, value in asdict(options).items() if name != "threads"}
    if options.lsh:
        facts["found"] = {str(similarity): round(float(options.lsh.found(similarity)), 4) for similarity in CURVE}
    report = finite(report | {"options": facts, "input": asdict(read), "pairs": looked_at})
    write_json(report_path(output), report, indent=1, ensure_ascii=False)
    return report


def report_path(output: str | os.PathLike) -> Path:
    return Path(output).with_suffix(".report.json")


def dedup_page(report: dict, output: str | os.PathLike) -> str:
    """The report in a few lines of text."""
    read, kept = report["read"], report["kept"]
    head = (f"kept {kept['documents']:,} of {read['documents']:,} documents, {kept['bytes'] / 1e6:,.2f} of "
            f"{read['bytes'] / 1e6:,.2f} MB, in {output}")
    lines = [head] + [f"    {reason + 's':<22}{size['documents']:>12,} documents {size['bytes'] / 1e6:>12,.2f} MB"
                      for reason, size in report["dropped"].items() if size["documents"]]
    if report["pairs"]:
        candidates, similar = report["pairs"]["candidates"], report["pairs"]["similar"]
        lines.append(f"    {candidates:,} pairs shared a band, {similar:,} were similar")
    read = Report(**report["input"])
    lines += [read.skipped_in_words()] * bool(read.skipped)
    return "\n".join([*lines, f"report in {report_path(output)}"])
