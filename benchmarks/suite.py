"""Runs what was asked for, part after part, and hands the findings to the report. What is done is written at once, so
Ctrl-C, a failure or an end of the time keep what there is."""
import json
import sys
import time
from argparse import Namespace
from datetime import date
from inspect import isgenerator

from minillm.kernels.select import OPS
from minillm.progress import Progress

from . import (
    attention_lengths,
    decode,
    dedup,
    demo,
    gradcheck,
    load,
    lora,
    machine,
    report,
    serve,
    speculative,
    step,
    tokenizer,
)
from .ops import GPT2, op_rows

SPECIAL = {"step": step.rows, "decode": decode.rows, "demo": demo.rows, "tokenizer": tokenizer.rows,
           "dedup": dedup.rows, "speculative": speculative.rows, "attention_lengths": attention_lengths.rows,
           "serve": serve.rows, "gradcheck": gradcheck.rows, "load": load.rows, "lora": lora.rows,
           "lora_dpo": lora.dpo_rows}
# What --all runs, and with which settings: the most wanted first. The others want files or a model of their own.
ALL = [*((op, {}) for op in OPS),
       ("step", {"batch": 4, "tokens": 256, "compile": True}), ("demo", {}), ("attention_lengths", {}), ("decode", {}),
       ("linear", {"ladder": True, "dims": "B=1,T=256"}), ("attention", {"ladder": True, "dims": "B=1,T=512"}),
       ("step", {"batch": 1, "tokens": 1024, "compile": True})]
QUICK = [*((op, {"dims": "B=1,T=64"}) for op in OPS),
         ("step", {"batch": 1, "tokens": 64}), ("demo", {"seeds": 1, "steps": 200}),
         ("attention_lengths", {"lengths": "512,1024,2048"}), ("decode", {"tokens": 64}),
         ("linear", {"ladder": True, "dims": "B=1,T=64,C=256"}), ("attention", {"ladder": True, "dims": "B=1,T=128"})]


def execute(options):
    """Do what the command line says; returns the exit code: 0, 1 if a candidate was wrong, 130 after Ctrl-C."""
    if options.readme is not None:
        results = options.readme or report.newest()
        report.update_readmes(results)
        print(f"README.md and benchmarks/README.md: tables from {results}")
        return 0
    parts = wanted(options)
    document, interrupted = new_document(options, parts), False
    try:
        run_parts(document, parts, options)
    except KeyboardInterrupt:
        interrupted = True
    publish(document, options)
    return 130 if interrupted else int(bool(document["wrong"]))


def wanted(options):
    """[(name, options of this part)]: the names given, or every op, or what --all stands for. Raises ValueError."""
    known = [*OPS, *SPECIAL]
    for name in options.names:
        if name not in known:
            raise ValueError(f"unknown benchmark {name!r}: expected one of {', '.join(known)}")
    parts = [(name, {}) for name in options.names or OPS]
    if options.all:
        parts = QUICK if options.quick else ALL
    parts = [(name, Namespace(**vars(options) | changes)) for name, changes in parts]
    for _, own in parts:
        parse_dims(own.dims)
    return parts


def parse_dims(text):
    """"B=1,T=8" -> Dims, the rest from GPT-2; heads are 64 wide unless NH is given. Raises ValueError."""
    given = {}
    for part in filter(None, (text or "").split(",")):
        key, _, value = part.strip().partition("=")
        if key not in GPT2.sampled() or not value.isdecimal() or int(value) < 1:
            raise ValueError(f"--dims: {part!r}: expected {', '.join(GPT2.sampled())} and numbers, as in B=4,T=256")
        given[key] = int(value)
    if "C" in given and "NH" not in given:
        given["NH"] = max(1, given["C"] // 64)
    dims = GPT2._replace(**given)
    if dims.C % dims.NH:
        raise ValueError(f"--dims: C must be a multiple of NH: got C={dims.C}, NH={dims.NH}")
    return dims


def new_document(options, parts):
    """The results before anything ran."""
    return {"date": options.date or date.today().isoformat(), "command": " ".join(name for name, _ in parts),
            "machine": machine.describe(options.threads), "peaks": {}, "rows": [], "wrong": {}, "skipped": {}}


def run_parts(document, parts, options):
    """Fill the document, part by part, and write it after each."""
    started, before = time.monotonic(), machine.usage()
    dtypes = [options.dtype] + (["bfloat16"] if options.ladder or any(name in SPECIAL for name, _ in parts) else [])
    document["peaks"] = machine.peaks(options.threads, dict.fromkeys(dtypes))
    progress = Progress("benchmarks", unit="part")
    for number, (name, own) in enumerate(parts):
        progress(number, len(parts), name)
        if options.minutes and time.monotonic() - started > 60 * options.minutes:
            document["skipped"][f"{name} (part {number + 1})"] = f"not begun after {options.minutes:g} minutes"
            continue
        try:
            for findings in findings_of(name, own, document["peaks"]):
                add_findings(document, name, *findings)
                document["machine"]["others"] = machine.others(before)
                save(document, options)
        except Exception as error:
            if not options.all:
                raise
            document["wrong"][f"{name} (part {number + 1})"] = [f"{type(error).__name__}: {error}"]     # and on we go
    progress.close()


def findings_of(name, own, peaks):
    """The findings of one part, each (rows, wrong, skipped): one, or several where a long part yields them."""
    if name in SPECIAL:
        findings = SPECIAL[name](own, peaks, Progress(name, unit="round"))
        return findings if isgenerator(findings) else [findings]
    rows, *rest = op_rows(name, parse_dims(own.dims), own.dtype, own.threads, peaks, own.ladder, own.repeat)
    return [([row | {"ladder": True} for row in rows] if own.ladder else rows, *rest)]


def add_findings(document, name, rows, wrong, skipped):
    """Put the findings of a part into the document."""
    document["rows"] += rows
    document["wrong"] |= {f"{name} {candidate}": lines for candidate, lines in wrong.items()}
    document["skipped"] |= {f"{name} {candidate}": why for candidate, why in skipped.items()}


def save(document, options):
    """Write what there is so far, if it is wanted as a file; returns the path or None."""
    if not options.json or options.out == "-":
        return None
    what = ("all" if options.all else "-".join(options.names) or "ops") + "-quick" * options.quick
    path = options.out or report.RESULTS / f"{document['date']}-{what}.json"
    report.save(document, path)
    return path


def publish(document, options):
    """Print the tables, or write JSON (--out - prints that)."""
    if options.json and options.out == "-":
        json.dump(document, sys.stdout, indent=1)
        return print()
    print(report.page(document))
    if path := save(document, options):
        print(f"results in {path}")
