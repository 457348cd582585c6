"""A data card: what a corpus is made of, what was done to it, and its limits, from the reports of the data commands.

After Gebru et al. 2018 (arXiv 1803.09010, "Datasheets for datasets") and Hugging Face's dataset cards. What no report
can know, such as licences, is said to be unknown unless given.
"""
import json
from collections.abc import Iterable
from pathlib import Path

from ..storage.atomic import AnyPath, atomic_write

LIMITS = ("Filters are rules about form: they do not know whether a text is true.",
          "Personal data is masked by patterns; what has no pattern, such as names, stays.",
          "Thresholds were set for English prose; other languages, tables and code lose more.")


def write_card(output: AnyPath, reports: Iterable[AnyPath], title: str = "Data card",
               licences: dict[str, str] | None = None, limits: Iterable[str] = ()) -> str:
    """Write a Markdown card from report files; returns a line that says so. Raises ValueError for another file."""
    found = [(Path(path), read_report(path)) for path in reports]
    parts = [f"# {title}", "## Sources", sources(found, licences or {}), "## Steps",
             *(SECTIONS[kind](path, report) for path, (kind, report) in found),
             "## Known limits", "\n".join(f"- {limit}" for limit in (*LIMITS, *limits))]
    with atomic_write(output) as file:
        file.write("\n\n".join(parts) + "\n")
    return f"data card of {len(found)} steps in {output}"


def read_report(path: AnyPath) -> tuple[str, dict]:
    """(kind, report): kind is clean, dedup or shards."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(report, dict):
        for kind, key in (("shards", "splits"), ("dedup", "clusters"), ("clean", "scores")):
            if key in report:
                return kind, report
    raise ValueError(f"{path}: expected a report of data clean or data dedup, or a shards.json")


def sources(found: list[tuple[Path, tuple[str, dict]]], licences: dict[str, str]) -> str:
    """What the first step read, and the licences that were given."""
    _, report = found[0][1]
    read = report.get("read") or {"documents": sum(s["documents"] for s in report["splits"].values()),
                                  "bytes": sum(s["bytes"] for s in report["splits"].values())}
    lines = [f"{read['documents']:,} documents, {read['bytes'] / 1e6:,.2f} MB of text."]
    skipped = report.get("input", report.get("source", {})).get("skipped", {})
    lines += [f"- not read: {count:,} {reason}" for reason, count in skipped.items()]
    lines += [f"- licence of {source}: {licence}" for source, licence in licences.items()]
    return "\n".join(lines + ["- licence: unknown (none was given)"] * (not licences))


def clean_section(path: Path, report: dict) -> str:
    lines = [f"### Cleaning (`{path.name}`)", kept(report), "", "| reason | documents | MB |", "|---|---:|---:|"]
    lines += [f"| {reason} | {count['documents']:,} | {count['bytes'] / 1e6:,.2f} |"
              for reason, count in report["dropped"].items()]
    options = ", ".join(f"{key} {value}" for key, value in report["options"].items() if value not in ((), [], {}, None))
    masked = ", ".join(f"{count:,} {kind}" for kind, count in report["masked"].items()) or "nothing"
    return "\n".join([*lines, "", f"Masked: {masked}.", f"Settings: {options}."])


def dedup_section(path: Path, report: dict) -> str:
    lines = [f"### Deduplication (`{path.name}`)", kept(report), ""]
    lines += [f"- {reason}: {size['documents']:,} documents, {size['bytes'] / 1e6:,.2f} MB"
              for reason, size in report["dropped"].items()]
    threshold = report["options"]["threshold"]
    return "\n".join([*lines, f"- Jaccard similarity from which documents are near-duplicates: {threshold}"])


def shards_section(path: Path, report: dict) -> str:
    lines = [f"### Tokens (`{path.name}`)", "", "| split | documents | MB | tokens |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {s['documents']:,} | {s['bytes'] / 1e6:,.2f} | {s['tokens']:,} |"
              for name, s in report["splits"].items()]
    lines += ["", f"Vocabulary {report['vocab_size']:,}, tokenizer {report['tokenizer']}; the split is by a hash of "
                  f"each text (fraction {report['val_fraction']}, seed {report['seed']})."]
    return "\n".join(lines)


def kept(report: dict) -> str:
    read, left = report["read"], report["kept"]
    return (f"Kept {left['documents']:,} of {read['documents']:,} documents, {left['bytes'] / 1e6:,.2f} of "
            f"{read['bytes'] / 1e6:,.2f} MB.")


SECTIONS = {"clean": clean_section, "dedup": dedup_section, "shards": shards_section}
