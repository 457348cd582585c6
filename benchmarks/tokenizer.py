"""Tokenizers: MB/s encoded and seconds trained, minillm against whoever is installed, one process a measurement.

Texts, document by document: `prose` is the bundled corpus, `mixed` the standard library's sources and then the prose.
Cold is the first pass over a text in a fresh process, when caches are empty; warm is the median of later passes. Ids and
merges of every candidate are compared with minillm's before its time counts. With one thread a process's own CPU time
is taken, system calls included, which other work on the machine disturbs less; else the time on the wall.

The vocabulary: a directory of one's own in MINILLM_BENCH_TOKENIZER (GPT-2's two files, say), else one of 32,768
tokens that is trained on the mixed text, with GPT-2's pattern.
"""
import hashlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minillm.data.corpus import pydoc_corpus
from minillm.tokenizer import Tokenizer

from .workers import environment, peak_rss

CANDIDATES = {"minillm": "minillm", "gigatoken": "gigatoken", "tiktoken": "tiktoken", "tokenizers": "tokenizers",
              "rustbpe": "rustbpe"}                  # name -> the package it needs
ENCODERS = ("minillm", "gigatoken", "tiktoken", "tokenizers")
TRAINERS = ("minillm", "gigatoken", "tokenizers", "rustbpe")
VOCAB_SIZE, TRAINED = 32_768, (1000, 8000, 32_000)
SECONDS = 6             # of passes in one process; a slower candidate gets one pass, and one process
ROUNDS = 3
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        tasks = [("encode", text, threads) for text in ("prose", "mixed") for threads in sorted({1, options.threads})]
        tasks += [("train", vocab_size, 1) for vocab_size in TRAINED]
        found, wrong = [], {}
        for number, (kind, what, threads) in enumerate(tasks):
            if progress:
                progress(number, len(tasks), f"{kind} {what}")
            new_rows, new_wrong = measure(kind, what, threads, folder, chosen(options.only), options.repeat or ROUNDS)
            found += new_rows
            wrong |= new_wrong
    missing = {name: "not installed" for name, package in CANDIDATES.items() if not find_spec(package)}
    if "rustbpe" in wrong:          # it promises nobody's merges
        missing["rustbpe"] = f"its merges are others, so its time is no comparison ({wrong.pop('rustbpe')[0]})"
    return found, wrong, missing


def chosen(only):
    names = [name for name, package in CANDIDATES.items() if find_spec(package)]
    return [name for name in names if not only or name in only.split(",") or name == "minillm"]


# ---- the parent's side

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
    names = [name for name in names if name in (ENCODERS if kind == "encode" else TRAINERS)]
    answers, wrong = {name: [] for name in names}, {}
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if name in wrong or turn and answers[name] and sum(answers[name][0]["seconds"]) > SECONDS:
                continue
            answer = run_alone(name, kind, what, threads, folder)
            if "error" in answer:
                wrong[name] = [answer["error"]]
            else:
                answers[name].append(answer)
    right = answers.get("minillm", [])
    for name, found in answers.items():
        if found and right and found[0]["digest"] != right[0]["digest"]:
            wrong[name] = [f"{kind} {what}: {found[0]['count']:,} results, other than minillm's {right[0]['count']:,}"]
    answers = {name: found for name, found in answers.items() if found and name not in wrong}
    directions = ("cold", "warm") if kind == "encode" else ("train",)
    return [line for direction in directions for line in lines(kind, what, threads, direction, answers)], wrong


def run_alone(name, kind, what, threads, folder):
    """One measurement in a process of its own; a dict."""
    env = environment({"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": str(threads > 1).lower()}, threads)
    command = [sys.executable, "-m", "benchmarks.tokenizer", name, kind, str(what), str(threads), folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def lines(kind, what, threads, direction, answers):
    """Rows of one table; x_minillm: minillm's time over the candidate's."""
    samples = {name: [s for a in found for s in (a["seconds"][1:] if direction == "warm" else a["seconds"][:1])]
               for name, found in answers.items()}
    medians = {name: statistics.median(s) for name, s in samples.items() if s}
    return [{"op": f"tokenizer {kind}", "dims": f"{what} {threads} thread{'s' * (threads > 1)}", "direction": direction,
             "candidate": name, "dtype": answers[name][0]["dtype"], "median_ms": 1e3 * median,
             "low_ms": 1e3 * min(samples[name]), "high_ms": 1e3 * max(samples[name]), "samples": len(samples[name]),
             "mbs": answers[name][0]["bytes"] / median / 1e6,
             "gflops": None, "gbs": None, "peak_percent": None, "bound": None,
             "peak_rss_mb": max(a["peak_rss"] for a in answers[name]) / 1e6,
             "x_minillm": medians.get("minillm", median) / median} for name, median in medians.items()]


# ---- the worker's side: each function imports only what it measures

def encoder(name, folder, threads):
    """A function from documents to a list of arrays or lists of ids."""
    if name == "minillm":
        tok = Tokenizer.from_pretrained(folder)
        if threads > 1:
            return lambda documents: [tok.encode_batch_array(documents, threads=threads)[0]]
        return lambda documents: [tok.encode_array(text) for text in documents]
    if name == "gigatoken":
        import gigatoken
        tok = gigatoken.Tokenizer(str(Path(folder) / "tokenizer.json"))
        if threads > 1:
            return lambda documents: [np.asarray(row) for row in tok.encode_batch(documents, parallel=True)]
        return lambda documents: [tok.encode(text) for text in documents]
    if name == "tiktoken":
        return tiktoken_encoder(folder, threads)
    import tokenizers
    tok = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    if threads > 1:
        return lambda documents: [e.ids for e in tok.encode_batch(documents, add_special_tokens=False)]
    return lambda documents: [tok.encode(text, add_special_tokens=False).ids for text in documents]


def tiktoken_encoder(folder, threads):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe
    ranks = load_tiktoken_bpe(str(Path(folder) / "ranks.tiktoken"))
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    tok = tiktoken.Encoding("bench", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    if threads > 1:
        return lambda documents: tok.encode_ordinary_batch(documents, num_threads=threads)
    return lambda documents: [tok.encode_to_numpy(text, disallowed_special=()) for text in documents]


def time_encoding(name, what, folder, threads):
    clock = time.process_time if threads == 1 else time.perf_counter
    documents = json.loads((Path(folder) / f"{what}.json").read_text(encoding="utf-8"))
    size = sum(len(text.encode("utf-8")) for text in documents)
    encode, seconds = encoder(name, folder, threads), []
    while not seconds or len(seconds) < 6 and sum(seconds) + seconds[-1] < SECONDS:
        start = clock()
        ids = encode(documents)
        seconds.append(clock() - start)
    flat = np.concatenate([np.asarray(part, np.uint32) for part in ids])
    return {"seconds": seconds, "bytes": size, "count": len(flat), "digest": digest(flat.tobytes()),
            "dtype": str(getattr(ids[0], "dtype", "list"))}


def train(name, vocab_size, path):
    """Merges as a list of pairs of bytes, or a function that gives it when the clock has stopped."""
    if name == "minillm":
        return Tokenizer.train(path, vocab_size, [], threads=1).merges
    if name == "gigatoken":
        import gigatoken
        return gigatoken.train_bpe(path, vocab_size, [])[1]
    if name == "rustbpe":
        return train_rustbpe(vocab_size, path)
    import tokenizers

    from minillm.tokenizer.formats import parse_merge
    tok = tokenizers.Tokenizer(tokenizers.models.BPE())
    tok.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    text = path.read_bytes().decode("utf-8")        # from memory: from a file it would train line by line
    tok.train_from_iterator([text], tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                                                   initial_alphabet=alphabet))
    return lambda: [parse_merge(merge) for merge in json.loads(tok.to_str())["model"]["merges"]]


def train_rustbpe(vocab_size, path):
    import rustbpe

    from minillm.tokenizer.pretokenize import PATTERNS
    tok = rustbpe.Tokenizer()
    tok.train_from_iterator(iter([path.read_bytes().decode("utf-8")]), vocab_size, pattern=PATTERNS["gpt2"])
    return lambda: [[bytes(token)] for token, _ in tok.get_mergeable_ranks() if len(token) > 1]


def time_training(name, vocab_size, folder):
    path = Path(folder) / "mixed.txt"
    start = time.process_time()
    merges = train(name, int(vocab_size), path)
    seconds = time.process_time() - start
    peak = peak_rss()
    merges = [b"".join(merge) for merge in (merges() if callable(merges) else merges)]
    return {"seconds": [seconds], "bytes": path.stat().st_size, "count": len(merges), "dtype": "merges",
            "digest": digest(repr(merges).encode()), "peak_rss": peak}


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


if __name__ == "__main__":
    _, name, kind, what, threads, folder = sys.argv
    answer = time_encoding(name, what, folder, int(threads)) if kind == "encode" else time_training(name, what, folder)
    print("\n" + json.dumps({"peak_rss": peak_rss()} | answer))
