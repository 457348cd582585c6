"""Cleaning a corpus: drop the documents that break a rule and say why, repair and mask the others.

Documents are independent, so they go to worker processes in batches; results are written in the order of the input.
The report holds counts and bytes by reason, excerpts, and every score's distribution over a sample of the documents,
from which the sweep says what another bound would drop.
"""
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from ...storage.atomic import AnyPath, atomic_write
from ..batches import batched, check_paths, finite, json_line, weight
from ..executors import in_order, workers
from ..sources.files import read_records
from ..sources.report import Report
from .document import Cleaned, CleanOptions, cached_rules, clean_batch
from .html_report import html_page
from .report import Tally, report_paths

BATCH_BYTES = 2 ** 20


def clean(inputs: Iterable[AnyPath], output: AnyPath, options: CleanOptions = CleanOptions(),
          progress: Callable | None = None) -> dict:
    """Write the kept documents of `inputs` (as files.read_records reads them) to `output`, a .jsonl file.

    A kept record is the original with its text replaced and with "scores" and "masked". Returns the report, also
    written to report.json and report.html beside the output (`report_paths`). Both appear when they are whole.
    Raises FileNotFoundError for a missing input, ValueError when nothing is usable, ImportError for a missing extra.
    """
    inputs, output = check_paths(inputs, output)
    cached_rules(options)                                     # a missing extra or model is told at once
    read, tally = Report(), Tally()
    with atomic_write(output) as file:
        records = read_records(inputs, read, options.field, options.all_text)
        for done, ((name, original, record), cleaned) in enumerate(cleaned_records(records, options), 1):
            tally.count(name, original, cleaned)
            if cleaned.text is not None:
                kept = record | {options.field: cleaned.text, "scores": cleaned.scores}
                kept |= {"masked": dict(cleaned.masked)} if cleaned.masked else {}
                file.write(json_line(kept))
            if progress and done % 64 == 0:
                progress(done, done, f"{tally.kept['documents']:,} kept")
    report = finite(tally.report(options) | {"input": asdict(read)})
    pages = json.dumps(report, indent=1, ensure_ascii=False), html_page(report)
    for path, content in zip(report_paths(output), pages):
        with atomic_write(path) as file:
            file.write(content)
    return report


def cleaned_records(records: Iterable, options: CleanOptions) -> Iterator[tuple[tuple[str, str, dict], Cleaned]]:
    """Each with what `clean_batch` makes of its text, in their order. At most a few batches are in flight at once."""
    with workers(options.processes, options.scheduler) as (pool, width):
        tasks = ((batch, pool.submit(clean_batch, [text for _, text, _ in batch], options))
                 for batch in batched(records, weight, BATCH_BYTES))
        for batch, cleaned in in_order(tasks, 2 * width):
            yield from zip(batch, cleaned)
