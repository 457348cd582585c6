"""Near-duplicates: minillm, rensa and datasketch on the same documents, one process a measurement.

The task: of 4,000 pieces of the standard library and copies of some with more or fewer words changed, flag those that
share a band of 128 permutations, 16 bands of 8 rows, over shingles of 5 words, with another one. Everybody gets the
same set of shingles of each document. `text` is from the documents themselves; for the others that includes making the
shingles, in Python, as their users do. `shingles` gives them theirs, made before the clock starts (for rensa also as
numbers, hashed before); minillm then still begins with the text, so this is the harder comparison. rensa's "rho"
samples shingles and is listed for what it is. With one thread CPU time counts, else time on the wall.

Truth is brute force: a document is a duplicate if its exact Jaccard similarity with any other is at least 0.8. Recall
and precision of the flags are printed beside the speed; a candidate whose recall is not near the theory is wrong.

Last, the command itself, files to files, on generated text: `MINILLM_BENCH_DEDUP_MB` megabytes (default 50), its CPU
time with one thread and its peak memory.
"""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minillm.data.dedup import minhash
from minillm.data.dedup.minhash import WORD, Lsh, fold

from .measure import report_row
from .tokenizer import standard_library
from .workers import environment, peak_rss

LSH, THRESHOLD = Lsh(bands=16, rows=8), 0.8
DOCUMENTS, COPIES, CHARACTERS = 3000, 1000, 2000
CANDIDATES = {"minillm": None, "minillm scalar": None, "rensa": "rensa", "rensa hashed": "rensa", "rensa rho": "rensa",
              "datasketch": "datasketch"}        # name -> the package it needs
ROUNDS, SLOW = 5, 3             # a candidate that takes more seconds than SLOW is run once
SINGLE = ("datasketch", "minillm scalar")        # measured with one thread only


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    with tempfile.TemporaryDirectory() as folder:
        curve = write_inputs(Path(folder))
        found, wrong = [], {}
        for number, threads in enumerate(sorted({1, options.threads})):
            if progress:
                progress(number, 3, f"{threads} threads")
            answers = measure(threads, folder, chosen(options.only, threads), options.repeat or ROUNDS)
            wrong |= {name: answer for name, answer in answers.items() if isinstance(answer, list)}
            wrong |= {name: [f"recall {answer['recall']:.3f}, the theory says {curve:.3f}"]
                      for name, answer in answers.items()
                      if name not in wrong and "rho" not in name and abs(answer["recall"] - curve) > 0.02}
            found += lines(threads, {name: answer for name, answer in answers.items() if name not in wrong})
        found.append(whole_command(Path(folder)))
    missing = {name: "not installed" for name, package in CANDIDATES.items() if package and not find_spec(package)}
    return found, wrong, missing


def chosen(only, threads):
    names = [name for name, package in CANDIDATES.items() if not package or find_spec(package)]
    return [name for name in names if (not only or name in only.split(",") or name == "minillm")
            and (threads == 1 or name not in SINGLE)]


# ---- the parent's side

def write_inputs(folder):
    """documents.json, truth.npy (documents,) bool; returns the recall by the S-curve for one partner each."""
    rng = random.Random(0)
    pieces = [text[start:start + CHARACTERS] for text in standard_library()
              for start in range(0, len(text), CHARACTERS)]
    documents = rng.sample([piece for piece in pieces if len(WORD.findall(piece.lower())) > 50], DOCUMENTS)
    documents += [changed(rng, text) for text in rng.sample(documents, COPIES)]
    rng.shuffle(documents)
    (folder / "documents.json").write_text(json.dumps(documents), encoding="utf-8")
    best = np.array(best_similarity(documents))
    np.save(folder / "truth.npy", best >= THRESHOLD)
    return float(LSH.found(best[best >= THRESHOLD]).mean())


def changed(rng, text):
    """A copy with up to 12 words replaced: similarities from 0.6 to 1."""
    words = text.split(" ")
    for place in rng.sample(range(len(words)), min(len(words), rng.randrange(13))):
        words[place] = f"changed{rng.randrange(10**9)}"
    return " ".join(words)


def best_similarity(documents):
    """(documents,) the exact Jaccard similarity with the most similar other document, of all."""
    hashes, offsets = minhash.shingle_sets(documents, LSH)
    best = np.zeros(len(documents))
    for i in range(1, len(documents)):
        pairs = np.column_stack([np.full(i, i), np.arange(i)])
        found = minhash.similarities(hashes, offsets, pairs)
        best[i] = max(best[i], found.max())
        best[:i] = np.maximum(best[:i], found)
    return best


def measure(threads, folder, names, rounds):
    """{candidate: answer with all its seconds, or [what is wrong]}; in turns."""
    answers = {}
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if turn and (isinstance(answers[name], list) or answers[name]["seconds"]["text"][0] > SLOW):
                continue
            answer = run_alone([name, str(threads), folder], threads)
            if "error" in answer:
                answers[name] = [answer["error"]]
            elif turn:
                for direction, seconds in answer["seconds"].items():
                    answers[name]["seconds"][direction] += seconds
            else:
                answers[name] = answer
    return answers


def run_alone(arguments, threads):
    """One measurement in a process of its own; a dict."""
    command = [sys.executable, "-m", "benchmarks.dedup", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True,
                          env=environment({"RAYON_NUM_THREADS": str(threads)}, threads))
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def lines(threads, answers):
    """Rows of one table; x_minillm: minillm's time, always from the text, over the candidate's."""
    ours = statistics.median(answers["minillm"]["seconds"]["text"]) if "minillm" in answers else None
    dims = f"{DOCUMENTS + COPIES} documents, {threads} thread{'s' * (threads > 1)}"
    return [row("dedup", dims, direction, name, seconds, answer, ours)
            for name, answer in answers.items() for direction, seconds in answer["seconds"].items()]


def row(op, dims, direction, name, seconds, answer, ours):
    median = statistics.median(seconds)
    return report_row(op, dims, direction, name, "flags", seconds, mbs=answer["bytes"] / median / 1e6,
                      documents_per_second=answer["documents"] / median, recall=answer.get("recall"),
                      precision=answer.get("precision"), peak_rss_mb=answer["peak_rss"] / 1e6,
                      x_minillm=(ours or median) / median)


def whole_command(folder):
    """`minillm data dedup` on generated text, of which a quarter are near copies; its memory limit is 256 MB."""
    megabytes = int(os.environ.get("MINILLM_BENCH_DEDUP_MB", "50"))
    rng = np.random.default_rng(0)
    words = np.array([" " + "".join(rng.choice(list("abcdefghij"), rng.integers(2, 10))) for _ in range(20_000)])
    size, number, recent = 0, 0, []
    with open(folder / "big.jsonl", "w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            if number % 4 == 3:
                text = recent[rng.integers(len(recent))].copy()
                text[rng.integers(0, 300, 3)] = " changed"
            else:
                text = words[(20_000 * rng.random(300)**2).astype(int)]
                recent = [*recent[-999:], text]
            line = json.dumps({"text": "".join(text), "id": number}) + "\n"
            file.write(line)
            size, number = size + len(line), number + 1
    answer = run_alone(["command", "1", str(folder)], 1)
    if "error" in answer:
        raise ValueError(answer["error"])
    return row("dedup command", f"{megabytes} MB generated, 1 thread", "files", "minillm", answer["seconds"]["files"],
               answer, None)


# ---- the worker's side: each function imports only what it measures

def shingles_of(text):
    """The same shingles as minillm's, as strings."""
    words = WORD.findall(fold(text).lower())
    return [" ".join(words[start:start + LSH.ngram]) for start in range(max(1, len(words) - LSH.ngram + 1))]


def flag_minillm(texts, threads, isa="auto"):
    keys, _ = minhash.band_keys_of(texts, LSH, threads, "cpp", isa)
    order = np.argsort(keys, axis=None)                     # (documents x bands,)
    same = keys.ravel()[order[1:]] == keys.ravel()[order[:-1]]
    flags = np.zeros(len(texts), bool)
    flags[order[1:][same] // LSH.bands] = flags[order[:-1][same] // LSH.bands] = True
    return flags


def flag_rensa(prepared, method):
    import rensa
    matrix = getattr(rensa.RMinHash, method)(prepared, LSH.permutations, 42)
    return rensa.RMinHashLSH(THRESHOLD, LSH.permutations, LSH.bands).query_duplicate_flags_matrix_one_shot(matrix)


def flag_datasketch(prepared):
    from datasketch import MinHash, MinHashLSH
    signatures = MinHash.bulk([[shingle.encode() for shingle in shingles] for shingles in prepared],
                              num_perm=LSH.permutations)
    index = MinHashLSH(num_perm=LSH.permutations, params=(LSH.bands, LSH.rows))
    for number, signature in enumerate(signatures):
        index.insert(number, signature, check_duplication=False)
    return [len(index.query(signature)) > 1 for signature in signatures]


def time_flags(name, threads, folder):
    """Seconds by direction, and how good the flags are."""
    texts = json.loads((Path(folder) / "documents.json").read_text(encoding="utf-8"))
    clock = time.process_time if threads == 1 else time.perf_counter
    prepare, flag = functions(name, threads)
    flag(prepare(texts[:50]))                               # imports, threads
    started = clock()
    prepared = prepare(texts)
    between = clock()
    flags = flag(prepared)
    ended = clock()
    seconds = {"text": [ended - started]} | ({} if "minillm" in name else {"shingles": [ended - between]})
    flags, truth = np.array(flags), np.load(Path(folder) / "truth.npy")
    return {"seconds": seconds, "bytes": sum(len(text.encode()) for text in texts), "documents": len(texts),
            "recall": (flags & truth).sum() / truth.sum(), "precision": (flags & truth).sum() / max(1, flags.sum())}


def functions(name, threads):
    """(texts -> what it takes, that -> flags)."""
    if "minillm" in name:
        isa = "scalar" if "scalar" in name else "auto"
        return (lambda texts: texts), lambda texts: flag_minillm(texts, threads, isa)
    if name == "datasketch":
        return (lambda texts: [shingles_of(text) for text in texts]), flag_datasketch
    if name == "rensa hashed":
        import rensa
        return (lambda texts: rensa.RMinHash.hash_token_sets([shingles_of(text) for text in texts]),
                lambda prepared: flag_rensa(prepared, "digest_matrix_from_token_hash_sets"))
    method = "digest_matrix_from_token_sets" + ("_rho" if name == "rensa rho" else "")
    return (lambda texts: [shingles_of(text) for text in texts]), lambda prepared: flag_rensa(prepared, method)


def time_command(folder):
    from minillm.data.dedup.pipeline import dedup
    from minillm.data.dedup.table import DedupOptions
    path = Path(folder) / "big.jsonl"
    started = time.process_time()
    report = dedup([path], Path(folder) / "kept.jsonl", DedupOptions(memory=2**28, threads=1))
    seconds = time.process_time() - started
    return {"seconds": {"files": [seconds]}, "bytes": path.stat().st_size, "documents": report["read"]["documents"]}


def main(name, threads, folder):
    answer = time_command(folder) if name == "command" else time_flags(name, threads, folder)
    print("\n" + json.dumps({"peak_rss": peak_rss()} | answer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
