"""Tokenizers: MB/s encoded and seconds trained, minillm against whoever is installed, one process a measurement.

Texts, document by document: `prose` is the bundled corpus, `mixed` the standard library's sources and then the prose.
Cold is the first pass over a text in a fresh process, when caches are empty; warm is the median of later passes. Ids
and merges of every candidate are compared with minillm's before its time counts. With one thread a process's own CPU
time is taken, system calls included, which other work on the machine disturbs less; else the time on the wall. Last, a
stream of a gigabyte goes through minillm's encode_iterable, for its speed and its peak memory.

Five to eight minutes on two cores that are otherwise idle. What is measured is handed over task by task, so a run that
is interrupted keeps it. The workers are in tokenizer_worker.py; `pip install 'minillm[bench]'` has the candidates.

The vocabulary: a directory of one's own in MINILLM_BENCH_TOKENIZER (GPT-2's two files, say), else one of 32,768
tokens that is trained on the mixed text, with GPT-2's pattern.
"""
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from minillm.data.sources.pydocs import pydoc_corpus
from minillm.tokenizer import Tokenizer

from .measure import report_row
from .workers import environment

CANDIDATES = {"minillm": "minillm", "gigatoken": "gigatoken", "tiktoken": "tiktoken", "tokenizers": "tokenizers",
              "rustbpe": "rustbpe"}                  # name -> the package it needs
WHO = {"encode": ("minillm", "gigatoken", "tiktoken", "tokenizers"),
       "train": ("minillm", "gigatoken", "tokenizers", "rustbpe"), "stream": ("minillm",)}
VOCAB_SIZE, TRAINED = 32_768, (1000, 8000, 32_000)
STREAM = "1 GB"
SLOW = 2                # seconds; a candidate whose first process takes longer gets no other one
ROUNDS = 3
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}


def rows(options, peaks, progress=None):
    """Yield, task by task, rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    yield [], {}, {name: "not installed" for name, package in CANDIDATES.items() if not find_spec(package)}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        tasks = [("encode", text, threads) for text in ("prose", "mixed") for threads in sorted({1, options.threads})]
        tasks += [("train", vocab_size, 1) for vocab_size in TRAINED] + [("stream", STREAM, 1)]
        for number, (kind, what, threads) in enumerate(tasks):
            if progress:
                progress(number, len(tasks), f"{kind} {what}")
            yield *measure(kind, what, threads, folder, chosen(options.only), options.repeat or ROUNDS), {}


def chosen(only):
    names = [name for name, package in CANDIDATES.items() if find_spec(package)]
    return [name for name in names if not only or name in only.split(",") or name == "minillm"]

def write_inputs(folder):
    """prose.json and mixed.json (lists of documents), mixed.txt to train on, and the vocabulary's files."""
    prose = [text for _, text in pydoc_corpus()]
    mixed = standard_library() + prose
    for name, documents in (("prose", prose), ("mixed", mixed)):
        (folder / f"{name}.json").write_text(json.dumps(documents), encoding="utf-8")
    (folder / "mixed.txt").write_text("\n".join(mixed), encoding="utf-8", newline="")
    given = os.environ.get("MINILLM_BENCH_TOKENIZER")
    tok = Tokenizer.from_pretrained(given) if given else Tokenizer.train(folder / "mixed.txt", VOCAB_SIZE)
    tok.save(folder)
    tok.save_tiktoken(folder / "ranks.tiktoken")


def standard_library():
    """The sources of this Python's library that are UTF-8."""
    texts = []
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            try:
                texts.append(path.read_bytes().decode("utf-8"))
            except (OSError, UnicodeDecodeError):
                pass
    return texts


def measure(kind, what, threads, folder, names, rounds):
    """Run each candidate's process in turns; returns rows and {candidate: [what is wrong]}."""
    names = [name for name in names if name in WHO[kind]]
    answers, wrong = {name: [] for name in names}, {}
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if name in wrong or turn and sum(answers[name][0]["seconds"]) > SLOW:
                continue
            answer = run_alone(name, kind, what, threads, folder)
            if "error" in answer:
                wrong[name] = [answer["error"]]
            else:
                answers[name].append(answer)
    right = answers.get("minillm", [])
    for name, found in answers.items():
        if found and right and found[0]["digest"] != right[0]["digests"].get(name, right[0]["digest"]):
            wrong[name] = [f"{kind} {what}: {found[0]['count']:,} results, other than minillm's {right[0]['count']:,}"]
    answers = {name: found for name, found in answers.items() if found and name not in wrong}
    directions = ("cold", "warm") if kind == "encode" else (kind,)
    return [line for direction in directions for line in lines(kind, what, threads, direction, answers)], wrong


def run_alone(name, kind, what, threads, folder):
    """One measurement in a process of its own; a dict."""
    env = environment({"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": str(threads > 1).lower()}, threads)
    command = [sys.executable, "-m", "benchmarks.tokenizer_worker", name, kind, str(what), str(threads), folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def lines(kind, what, threads, direction, answers):
    """Rows of one table; x_minillm: minillm's time over the candidate's."""
    samples = {name: [s for a in found for s in (a["seconds"][1:] if direction == "warm" else a["seconds"][:1])]
               for name, found in answers.items()}
    medians = {name: statistics.median(s) for name, s in samples.items() if s}
    dims = f"{what} {threads} thread{'s' * (threads > 1)}"
    return [report_row(f"tokenizer {kind}", dims, direction, name, answers[name][0]["dtype"], samples[name],
                       mbs=answers[name][0]["bytes"] / median / 1e6,
                       peak_rss_mb=max(a["peak_rss"] for a in answers[name]) / 1e6,
                       x_minillm=medians.get("minillm", median) / median) for name, median in medians.items()]
