"""Clean documents: repair the text, score it, drop what is out of bounds and say why, mask personal data.

One document after the other goes through the same few steps, in this order; the first rule that it breaks is its reason:

    repair     mojibake by ftfy (where installed), Unicode NFC
    lines      C4's line rules, if asked for
    scores     filters.SCORES of the chosen families; language, tokens per word, classifiers where asked for
    mask       e-mail, phone, IP, card and account numbers, keys

Documents are independent, so they go to worker processes in batches; results are written in the order of the input.
The report holds counts and bytes by reason, excerpts, and every score's distribution over a sample of the documents, from which
the sweep says what another bound would drop.
"""
import hashlib
import heapq
import json
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from ...storage.atomic import atomic_write
from ...text import pii
from ...text.toxicity import toxicity
from ..batches import batched, check_paths
from ..sources import documents as extract
from . import filters
from .filters import INFINITY

SAMPLE = 50_000             # documents whose scores are kept for the report, chosen by hash
EXCERPTS, EXCERPT = 3, 200  # for each reason; characters of each
BATCH_BYTES = 2 ** 20
FAMILIES = ("gopher", "repetition", "c4")


@dataclass(frozen=True)
class Options:
    """families: of filters.SCORES. bounds: {score: (low, high)} instead of the table's. c4_lines: clean line by line.

    repair: None repairs where ftfy is installed. languages: ISO codes to keep (needs the extra `data`), with at least
    `language_probability`. tokenizer: directory, for tokens_per_word <= max_tokens_per_word. classifiers: {directory:
    (low, high)}. toxicity: highest probability (needs the extra `toxicity`). mask: personal data. processes: None for
    one a core. field: of a .jsonl record with the text. scheduler: of Dask, an address or "local" (see cluster.py), None
    for processes of our own.
    """
    families: tuple = ("gopher", "repetition")
    bounds: dict = field(default_factory=dict)
    c4_lines: bool = False
    repair: bool | None = None
    languages: tuple = ()
    language_probability: float = 0.5
    tokenizer: str | None = None
    max_tokens_per_word: float = 4.0
    classifiers: dict = field(default_factory=dict)
    toxicity: float | None = None
    mask: bool = True
    processes: int | None = None
    field: str = "text"
    scheduler: str | None = None

    def __post_init__(self):
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(f"families must be some of {', '.join(FAMILIES)}: got {family!r}")
        for name in self.bounds:
            if name not in filters.SCORES:
                raise ValueError(f"bounds: unknown score {name!r}: expected one of {', '.join(filters.SCORES)}")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes must be at least 1: got {self.processes}")


# ---- one document ----

def checks(options):
    """{name: (function of Parts -> number, low, high)} in the order in which they are tried."""
    found = {name: (score.function, *options.bounds.get(name, (score.low, score.high)))
             for name, score in filters.SCORES.items() if score.family in options.families or name in options.bounds}
    if options.tokenizer:
        encode = load_tokenizer(options.tokenizer).encode_ordinary
        found["tokens_per_word"] = (lambda d: filters.share(len(encode(d.text)), len(d.words)), 0,
                                    options.max_tokens_per_word)
    for directory, (low, high) in options.classifiers.items():
        score = load_classifier(directory).score
        found[f"classifier_{Path(directory).name}"] = (lambda d, score=score: score(d.text), low, high)
    if options.toxicity is not None:
        found["toxicity"] = (lambda d: toxicity(d.text), 0, options.toxicity)
    return found


@cache
def load_tokenizer(directory):
    from ...tokenizer import Tokenizer
    return Tokenizer.from_pretrained(directory)


@cache
def load_classifier(directory):
    from .classify import Classifier
    return Classifier.load(directory)


@cache
def fix_text(wanted):
    """ftfy's repair of wrongly decoded text, or a function that changes nothing."""
    try:
        from ftfy import fix_text as fix
    except ImportError:
        if wanted:
            raise ImportError("repairing text needs ftfy: pip install 'minillm[data]'") from None
        return lambda text: text
    return (lambda text: text) if wanted is False else lambda text: fix(text, uncurl_quotes=False)


def clean_one(text, options, tests):
    """(clean text or None, reason or None, scores, Counter of masked data, lines removed)."""
    text, removed = unicodedata.normalize("NFC", fix_text(options.repair)(text)), 0
    if options.c4_lines:
        text, removed = filters.c4_lines(text)
    parts, scores, reason = filters.Parts(text), {}, None
    for name, (function, low, high) in tests.items():
        scores[name] = function(parts)
        if not low <= scores[name] <= high:
            reason = reason or f"{name} {'below ' + format(low, 'g') if scores[name] < low else 'above ' + format(high, 'g')}"
    if options.languages:
        reason = reason or wrong_language(text, options)
    if reason or not text.strip():
        return None, reason or "nothing left", scores, Counter(), removed
    text, masked = pii.mask(text) if options.mask else (text, Counter())
    return text, None, scores, masked, removed


def wrong_language(text, options):
    from .language import language_of
    language, probability = language_of(text)
    if language not in options.languages or probability < options.language_probability:
        return f"language not {' or '.join(options.languages)}"
    return None


def clean_batch(batch, options):
    """What a worker does: [(name, text, record), ...] -> [(name, original text, record, *clean_one), ...]."""
    tests = cached_checks(json.dumps(asdict(options), default=str), options)
    return [(name, text, record, *clean_one(text, options, tests)) for name, text, record in batch]


CHECKS = {}


def cached_checks(key, options):
    """`checks`, once a process: it may load models."""
    if key not in CHECKS:
        CHECKS[key] = checks(options)
    return CHECKS[key]


# ---- all documents ----

def clean(inputs, output, options: Options = Options(), progress: Callable | None = None) -> dict:
    """Write the kept documents of `inputs` (as extract.read_records reads them) to `output`, a .jsonl file.

    A kept record is the original with its text replaced and with "scores" and "masked". Returns the report, also written
    to report.json and report.html beside the output (`report_paths`). Both appear when they are whole.
    Raises FileNotFoundError for a missing input, ValueError when nothing is usable, ImportError for a missing extra.
    """
    inputs, output = check_paths(inputs, output)
    cached_checks(json.dumps(asdict(options), default=str), options)          # a missing extra or model is told at once
    read, tally = extract.Report(), Tally()
    with atomic_write(output) as file:
        for done, result in enumerate(cleaned(extract.read_records(inputs, read, options.field), options), 1):
            name, original, record, text, reason, scores, masked, removed = result
            tally.count(name, original, text, reason, scores, masked, removed)
            if text is not None:
                kept = record | {options.field: text, "scores": scores} | ({"masked": dict(masked)} if masked else {})
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
            if progress and done % 64 == 0:
                progress(done, done, f"{tally.kept['documents']:,} kept")
    report = tally.report(options) | {"input": asdict(read)}
    from .report import html
    for path, content in zip(report_paths(output), (json.dumps(report, indent=1, ensure_ascii=False), html(report))):
        with atomic_write(path) as file:
            file.write(content)
    return report


def report_paths(output):
    """(report.json, report.html): NAME.report.json and NAME.report.html for NAME.jsonl."""
    return Path(output).with_suffix(".report.json"), Path(output).with_suffix(".report.html")


def cleaned(records, options):
    """Results in the order of the records. At most a few batches are on their way at once."""
    with workers(options) as (pool, width):
        waiting = deque()
        try:
            for batch in batched(records, lambda record: len(record[1]), BATCH_BYTES):
                waiting.append(pool.submit(clean_batch, batch, options))
                if len(waiting) > 2 * width:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def workers(options):
    """(an executor, how many work at once)."""
    processes = options.processes or len(os.sched_getaffinity(0))
    if options.scheduler:
        from ..cluster import executor
        with executor(options.scheduler, options.processes) as found:
            yield found
    elif processes == 1:
        yield Here(), 1
    else:
        with ProcessPoolExecutor(processes) as pool:
            yield pool, processes


class Here(Executor):
    """An executor that does the work at once, in this process."""

    def submit(self, function, /, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


class Tally:
    """Counts while documents pass, and a sample of their scores that does not depend on their order."""

    def __init__(self):
        self.read, self.kept = Counter(), Counter()
        self.reasons, self.excerpts = {}, {}
        self.masked, self.lines_removed = Counter(), 0
        self.sample = []                            # heap of (minus hash, number, scores, bytes)

    def count(self, name, original, text, reason, scores, masked, removed):
        size = len(original.encode())
        self.read.update(documents=1, bytes=size)
        self.masked.update(masked)
        self.lines_removed += removed
        if text is not None:
            self.kept.update(documents=1, bytes=len(text.encode()))
        else:
            self.reasons.setdefault(reason, Counter()).update(documents=1, bytes=size)
            shown = self.excerpts.setdefault(reason, [])
            if len(shown) < EXCERPTS:
                shown.append({"name": name, "text": original[:EXCERPT]})
        digest = hashlib.blake2b(original.encode(), digest_size=8).digest()
        entry = (-int.from_bytes(digest, "little"), self.read["documents"], scores, size)
        (heapq.heappush if len(self.sample) < SAMPLE else heapq.heappushpop)(self.sample, entry)

    def report(self, options):
        """Counts, excerpts, distributions and sweep as one dict for JSON."""
        bounds = {name: (low, high) for name, (_, low, high) in checks(options).items()}
        sample = sorted(self.sample, key=lambda entry: entry[1])
        scores = {name: [s[name] for _, _, s, _ in sample if name in s] for name in bounds}
        return {"read": dict(self.read), "kept": dict(self.kept) or {"documents": 0, "bytes": 0},
                "dropped": {reason: dict(count) for reason, count in
                            sorted(self.reasons.items(), key=lambda item: -item[1]["documents"])},
                "excerpts": self.excerpts, "masked": dict(self.masked), "lines_removed": self.lines_removed,
                "options": {k: v for k, v in asdict(options).items() if k not in ("processes", "scheduler")},
                "scores": {name: distribution(values, *bounds[name]) for name, values in scores.items() if values}}


BINS = 40


def distribution(values, low, high):
    """Histogram, bounds, quantiles, and the sweep: {bound: share dropped} for the score's own quantiles as bounds."""
    values = sorted(values)
    quantiles = {q: values[min(len(values) - 1, int(q * len(values)))] for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)}
    bottom, top = values[0], max(quantiles[0.99], min(high, values[-1]))        # a few outliers do not flatten the rest
    width = (top - bottom) / BINS or 1.0
    counts = Counter(min(BINS - 1, int((value - bottom) / width)) for value in values)
    return {"low": low, "high": None if high == INFINITY else high, "from": bottom, "to": bottom + BINS * width,
            "counts": [counts[i] for i in range(BINS)], "quantiles": {str(q): v for q, v in quantiles.items()},
            "dropped": share_outside(values, low, high),
            "sweep": [{"low": b, "dropped": share_outside(values, b, INFINITY)} for b in dict.fromkeys(quantiles.values())]
            if high == INFINITY else
            [{"high": b, "dropped": share_outside(values, -INFINITY, b)} for b in dict.fromkeys(quantiles.values())]}


def share_outside(values, low, high):
    return sum(not low <= value <= high for value in values) / len(values)


def page(report, output):
    """The report in a few lines."""
    read, kept = report["read"], report["kept"]
    lines = [f"kept {kept['documents']:,} of {read['documents']:,} documents, {kept['bytes'] / 1e6:,.2f} of "
             f"{read['bytes'] / 1e6:,.2f} MB, in {output}"]
    lines += [f"    {count['documents']:>8,} documents {count['bytes'] / 1e6:>10,.2f} MB  {reason}"
              for reason, count in report["dropped"].items()]
    if report["masked"]:
        lines.append("masked " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(report["masked"].items())))
    if report["lines_removed"]:
        lines.append(f"{report['lines_removed']:,} lines removed")
    skipped = report["input"]["skipped"]
    lines += [f"{sum(skipped.values())} inputs skipped: {skipped}"] * bool(skipped)
    return "\n".join([*lines, f"report in {report_paths(output)[1]}"])
