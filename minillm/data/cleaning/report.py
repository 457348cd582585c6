"""The cleaning report: counts by reason, excerpts, score distributions, and what other bounds would drop."""
import hashlib
import heapq
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ..sources.report import Report
from .document import Cleaned, CleanOptions, cached_rules
from .filters import INFINITY

SAMPLE = 50_000             # documents whose scores are kept for the report, chosen by hash
EXCERPTS, EXCERPT = 3, 400  # for each reason; characters of each
BINS = 40
QUANTILES = 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99


class Tally:
    """Counts while documents pass, and a sample of their scores that does not depend on their order."""

    def __init__(self):
        self.read, self.kept = Counter(), Counter()
        self.reasons, self.excerpts = {}, {}
        self.masked, self.lines_removed = Counter(), 0
        self.sample = []                            # heap of (minus hash, number, scores, bytes)

    def count(self, name: str, original: str, cleaned: Cleaned) -> None:
        """Add one document."""
        size = len(original.encode())
        self.read.update(documents=1, bytes=size)
        self.masked.update(cleaned.masked)
        self.lines_removed += cleaned.lines_removed
        if cleaned.text is not None:
            self.kept.update(documents=1, bytes=len(cleaned.text.encode()))
        else:
            self.reasons.setdefault(cleaned.reason, Counter()).update(documents=1, bytes=size)
            shown = self.excerpts.setdefault(cleaned.reason, [])
            if len(shown) < EXCERPTS:
                shown.append({"name": name, "text": original[:EXCERPT]})
        digest = hashlib.blake2b(original.encode(), digest_size=8).digest()
        entry = (-int.from_bytes(digest, "little"), self.read["documents"], cleaned.scores, size)
        (heapq.heappush if len(self.sample) < SAMPLE else heapq.heappushpop)(self.sample, entry)

    def report(self, options: CleanOptions) -> dict:
        """Counts, excerpts, distributions and sweep as one dict for JSON."""
        bounds = {name: (low, high) for name, (_, low, high) in cached_rules(options).items()}
        sample = sorted(self.sample, key=lambda entry: entry[1])
        scores = {name: [s[name] for _, _, s, _ in sample if name in s] for name in bounds}
        return {"read": dict(self.read), "kept": dict(self.kept) or {"documents": 0, "bytes": 0},
                "dropped": {reason: dict(count) for reason, count in
                            sorted(self.reasons.items(), key=lambda item: -item[1]["documents"])},
                "excerpts": self.excerpts, "masked": dict(self.masked), "lines_removed": self.lines_removed,
                "options": {k: v for k, v in asdict(options).items() if k not in ("processes", "scheduler")},
                "scores": {name: distribution(values, *bounds[name]) for name, values in scores.items() if values}}


def distribution(values: list[float], low: float, high: float) -> dict:
    """Histogram, bounds, quantiles, and the sweep: {bound: share dropped} for the score's own quantiles as bounds."""
    values = sorted(values)
    quantiles = {q: values[min(len(values) - 1, int(q * len(values)))] for q in QUANTILES}
    bottom, top = values[0], max(quantiles[0.99], min(high, values[-1]))        # a few outliers do not flatten the rest
    width = (top - bottom) / BINS or 1.0
    counts = Counter(min(BINS - 1, int((value - bottom) / width)) for value in values)
    return {"low": low, "high": None if high == INFINITY else high, "from": bottom, "to": bottom + BINS * width,
            "counts": [counts[i] for i in range(BINS)], "quantiles": {str(q): v for q, v in quantiles.items()},
            "dropped": share_outside(values, low, high),
            "sweep": [{"low": bound, "dropped": share_outside(values, bound, INFINITY)} if high == INFINITY else
                      {"high": bound, "dropped": share_outside(values, -INFINITY, bound)}
                      for bound in dict.fromkeys(quantiles.values())]}


def share_outside(values: list[float], low: float, high: float) -> float:
    """The share of documents that the bounds drop."""
    return sum(not low <= value <= high for value in values) / len(values)


def report_paths(output) -> tuple[Path, Path]:
    """(report.json, report.html): NAME.report.json and NAME.report.html for NAME.jsonl."""
    return Path(output).with_suffix(".report.json"), Path(output).with_suffix(".report.html")


def clean_page(report: dict, output) -> str:
    """The report in a few lines of text."""
    read, kept = report["read"], report["kept"]
    lines = [f"kept {kept['documents']:,} of {read['documents']:,} documents, {kept['bytes'] / 1e6:,.2f} of "
             f"{read['bytes'] / 1e6:,.2f} MB, in {output}"]
    lines += [f"    {count['documents']:>8,} documents {count['bytes'] / 1e6:>10,.2f} MB  {reason}"
              for reason, count in report["dropped"].items()]
    if report["masked"]:
        lines.append("masked " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(report["masked"].items())))
    if report["lines_removed"]:
        lines.append(f"{report['lines_removed']:,} lines removed")
    read = Report(**report["input"])
    lines += [read.skipped_in_words()] * bool(read.skipped)
    return "\n".join([*lines, f"report in {report_paths(output)[1]}"])
