"""One measurement of benchmarks/tokenizer.py in its own process: candidate, kind, what, threads, folder of inputs.

Each function imports only what it measures, so a candidate's peak memory is its own.
"""
import hashlib
import json
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

from minillm.tokenizer import Tokenizer

from .workers import peak_rss

SECONDS, PASSES = 2, 6      # of encoding a text: until either is reached, but at least twice
GIGABYTE = 10 ** 9

def encoder(name, folder, threads):
    """A function from documents to a list of arrays or lists of ids."""
    if name == "minillm":
        tok = Tokenizer.from_pretrained(folder)
        if threads > 1:
            return lambda documents: [tok.encode_batch_array(documents, (), (), threads)[0]]
        return lambda documents: [tok.encode_array(text, (), ()) for text in documents]
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
    while len(seconds) < 2 or len(seconds) < PASSES and sum(seconds) < SECONDS:
        start = clock()
        ids = encode(documents)
        seconds.append(clock() - start)
    flat = np.concatenate([np.asarray(part, np.uint32) for part in ids])
    return {"seconds": seconds, "bytes": size, "count": len(flat), "digest": digest(flat.tobytes()), "digests": {},
            "dtype": str(getattr(ids[0], "dtype", "list"))}


def time_stream(folder):
    """A gigabyte of the mixed text, over and over, line by line into minillm's encode_iterable."""
    tok, lines = Tokenizer.from_pretrained(folder), gigabyte_of_lines(Path(folder) / "mixed.txt")
    start = time.process_time()
    count = sum(1 for _ in tok.encode_iterable(lines, disallowed_special=()))
    return {"seconds": [time.process_time() - start], "bytes": GIGABYTE, "count": count, "digest": "", "digests": {},
            "dtype": "stream"}


def gigabyte_of_lines(path):
    left = GIGABYTE
    while left > 0:
        with open(path, encoding="utf-8", newline="") as file:
            for line in islice(file, 1_000_000):
                left -= len(line.encode("utf-8"))
                if left <= 0:
                    return
                yield line


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
    merges = merges() if callable(merges) else merges
    digests = {}
    if name == "minillm":           # rustbpe's rule for ties is another (see minillm/tokenizer/train.py)
        digests["rustbpe"] = digest_merges(Tokenizer.train(path, int(vocab_size), [], threads=1, ties="values").merges)
    return {"seconds": [seconds], "bytes": path.stat().st_size, "count": len(merges), "dtype": "merges",
            "digest": digest_merges(merges), "digests": digests, "peak_rss": peak}


def digest_merges(merges):
    return digest(repr([b"".join(merge) for merge in merges]).encode())


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


if __name__ == "__main__":
    _, name, kind, what, threads, folder = sys.argv
    answer = {"encode": lambda: time_encoding(name, what, folder, int(threads)), "stream": lambda: time_stream(folder),
              "train": lambda: time_training(name, what, folder)}[kind]()
    print("\n" + json.dumps({"peak_rss": peak_rss()} | answer))
