"""Runs what was asked for, op after op, and hands the findings to the report. Ctrl-C keeps what there is."""
import json
import sys
from datetime import date
from inspect import isgenerator
from pathlib import Path

from minillm.progress import Progress
from minillm.registry import OPS, Dims

from . import decode, dedup, demo, machine, report, speculative, step, tokenizer
from .ops import GPT2, op_rows

SPECIAL = {"step": step.rows, "decode": decode.rows, "demo": demo.rows, "tokenizer": tokenizer.rows,
           "dedup": dedup.rows, "speculative": speculative.rows}
README = Path(__file__).resolve().parent.parent / "README.md"


def execute(options):
    """Do what the command line says; returns the exit code: 0, 1 if a candidate was wrong, 130 after Ctrl-C."""
    if options.readme is not None:
        results = options.readme or report.newest()
        report.update_readme(README, results)
        print(f"README.md: tables from {results}")
        return 0
    names, dims = wanted(options), parse_dims(options.dims)
    document, interrupted = new_document(options, names), False
    try:
        measure(document, names, dims, options)
    except KeyboardInterrupt:
        interrupted = True
    publish(document, options, names)
    return 130 if interrupted else int(bool(document["wrong"]))


def wanted(options):
    """Names to run: those given, or every op; --all adds the special ones. Raises ValueError for an unknown name."""
    known = [*OPS, *SPECIAL]
    for name in options.names:
        if name not in known:
            raise ValueError(f"unknown benchmark {name!r}: expected one of {', '.join(known)}")
    return known if options.all else options.names or list(OPS)


def parse_dims(text):
    """"B=1,T=8" -> Dims, the rest from GPT-2; heads are 64 wide unless NH is given. Raises ValueError."""
    given = {}
    for part in filter(None, (text or "").split(",")):
        key, _, value = part.strip().partition("=")
        if key not in Dims._fields or not value.isdecimal() or int(value) < 1:
            raise ValueError(f"--dims: {part!r}: expected {', '.join(Dims._fields)} and numbers, as in B=4,T=256")
        given[key] = int(value)
    if "C" in given and "NH" not in given:
        given["NH"] = max(1, given["C"] // 64)
    dims = GPT2._replace(**given)
    if dims.C % dims.NH:
        raise ValueError(f"--dims: C must be a multiple of NH: got C={dims.C}, NH={dims.NH}")
    return dims


def new_document(options, names):
    """The results before anything ran."""
    return {"date": options.date or date.today().isoformat(), "command": " ".join(names),
            "machine": machine.describe(options.threads), "peaks": {}, "rows": [], "wrong": {}, "skipped": {}}


def measure(document, names, dims, options):
    """Fill the document, benchmark by benchmark."""
    special = [name for name in names if name in SPECIAL]
    dtypes = [options.dtype] + (["bfloat16"] if special else [])
    document["peaks"] = peaks = machine.peaks(options.threads, dict.fromkeys(dtypes))
    progress = Progress("benchmarks", unit="op")
    for number, name in enumerate(names):
        progress(number, len(names), name)
        if name in SPECIAL:
            found = SPECIAL[name](options, peaks, Progress(name, unit="round"))
        else:
            found = op_rows(name, dims, options.dtype, options.threads, peaks, options.ladder, options.repeat)
        for part in found if isgenerator(found) else [found]:       # long ones come part by part
            add(document, name, *part)
            save(document, options)
    progress.close()


def add(document, name, rows, wrong, skipped):
    document["rows"] += rows
    document["wrong"] |= {f"{name} {candidate}": lines for candidate, lines in wrong.items()}
    document["skipped"] |= {f"{name} {candidate}": why for candidate, why in skipped.items()}


def save(document, options):
    """Write what there is so far, if it is wanted as a file; returns the path or None."""
    if not options.json or options.out == "-":
        return None
    what = "all" if options.all else "-".join(options.names) or "ops"
    path = options.out or report.RESULTS / f"{document['date']}-{what}.json"
    report.write_json(document, path)
    return path


def publish(document, options, names):
    """Print the tables, or write JSON (--out - prints that)."""
    if options.json and options.out == "-":
        json.dump(document, sys.stdout, indent=1)
        return print()
    print(report.page(document))
    if path := save(document, options):
        print(f"results in {path}")
