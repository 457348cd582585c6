"""Encoding with one's own tokenizer.json files: MB/s cold and warm, of prose and code and of scripts without spaces.

    python -m benchmarks.tokenizer_scripts [--rounds 2] [--seconds 1] [--out results.json] tokenizer.json ...

minillm, as arrays and as the lists that `encode` gives, beside gigatoken, fastokens, tiktoken and tokenizers where
they are installed, one thread, each in a process of its own, in turns; CPU time. Cold is the first pass over a text,
warm the median of later ones; the slow ones are given the first tenth of a text. `cjk` is made up: Chinese, kana,
Hangul and emoji, each drawn with a chance of about 1 / its place in a shuffled order, in pieces of 4 to 25 between
marks: few of them come twice. Ids of all are compared with minillm's.
"""
import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np

from .machine import describe
from .workers import environment

WHO = ("minillm", "gigatoken", "fastokens", "tiktoken", "tokenizers")
SLOW = ("tiktoken", "tokenizers")                       # are given a tenth of a text
SIZE = 5_000_000
ALPHABETS = ((0x4E00, 0x9FA5, 6000), (0x3041, 0x30FB, 200), (0xAC00, 0xD7A4, 1500))      # Chinese, kana, Hangul


def cjk():
    """5 MB, the same each time."""
    rng = random.Random(3)
    alphabets = []
    for first, last, count in ALPHABETS:
        letters = rng.sample(range(first, last), min(count, last - first))
        alphabets.append((list(map(chr, letters)), list(accumulate(1 / (i + 5) for i in range(len(letters))))))
    parts, size = [], 0
    while size < SIZE:
        (letters, weights), = rng.choices(alphabets, (55, 25, 20))
        part = "".join(rng.choices(letters, cum_weights=weights, k=rng.randint(4, 25)))
        emoji = "".join(map(chr, rng.choices(range(0x1F300, 0x1F650), k=3)))
        part += rng.choice("，。、！\n」") if rng.random() < 0.85 else emoji
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


def prose_and_code():
    """5 MB, half of the bundled prose, half of the standard library's sources."""
    from minillm.data.sources.pydocs import pydoc_corpus

    from .tokenizer import standard_library
    prose, code = "\n".join(text for _, text in pydoc_corpus()), "\n".join(standard_library())
    return prose[:SIZE // 2] + code[:SIZE // 2]


def encoders(who, file):
    """{form: a function from a text to ids}."""
    if who == "minillm":
        from minillm.tokenizer import Tokenizer
        tok = Tokenizer.from_pretrained(file)
        return {"array": lambda text: tok.encode_array(text, (), ()), "list": lambda text: tok.encode(text, (), ())}
    if who == "gigatoken":
        import gigatoken
        return {"array": gigatoken.Tokenizer(file).encode}
    if who == "tiktoken":
        return {"array": tiktoken_encoder(file)}
    if who == "fastokens":
        import fastokens
        theirs = getattr(fastokens.Tokenizer, "from_file", fastokens.Tokenizer)(file)
    else:
        import tokenizers
        theirs = tokenizers.Tokenizer.from_file(file)
    return {"list": lambda text: ids_of(theirs.encode(text, add_special_tokens=False))}


def ids_of(encoding):
    return getattr(encoding, "ids", encoding)


def tiktoken_encoder(file):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    from minillm.tokenizer import Tokenizer
    from minillm.tokenizer.pretokenize import PATTERNS
    tok = Tokenizer.from_pretrained(file)
    if tok.rules.normalizer:
        raise ValueError("it has no normalizers")
    with tempfile.TemporaryDirectory() as folder:
        tok.save_tiktoken(Path(folder) / "ranks.tiktoken")
        ranks = load_tiktoken_bpe(str(Path(folder) / "ranks.tiktoken"))
    theirs = tiktoken.Encoding("bench", pat_str=PATTERNS[tok.pattern], mergeable_ranks=ranks, special_tokens={})
    return lambda text: theirs.encode_to_numpy(text, disallowed_special=())


def time_all(who, file, folder, limit):
    """One candidate on all texts, in a process of its own: {"text form": seconds of each pass, ...}."""
    found = {}
    for form, encode in encoders(who, file).items():
        encode("a")
        for path in sorted(Path(folder).glob("*.txt")):
            text = path.read_bytes().decode("utf-8")
            text = text[:len(text) // 10] if who in SLOW else text
            size, seconds = len(text.encode()), []
            while len(seconds) < 3 or sum(seconds) < limit and len(seconds) < 30:
                start = time.process_time()
                ids = encode(text)
                seconds.append(time.process_time() - start)
            flat = np.asarray(ids, np.uint32)
            tenth = flat if who in SLOW else np.asarray(encode(text[:len(text) // 10]), np.uint32)
            found[f"{path.stem}/{form}"] = {"bytes": size, "seconds": seconds, "ids": len(flat), "tenth": digest(tenth),
                                            "digest": digest(flat)}
    print(json.dumps(found))


def digest(ids):
    return hashlib.md5(ids.tobytes()).hexdigest()


def measure(file, folder, rounds, limit):
    """{(who, text and form): rows of all rounds}, {who: what went wrong}."""
    found, wrong = {}, {}
    for turn in range(rounds):
        for who in WHO[turn % 2:] + WHO[:turn % 2]:
            if not find_spec(who) or who in wrong:
                continue
            command = [sys.executable, "-m", "benchmarks.tokenizer_scripts", "--one", who, folder, str(limit), file]
            env = environment({"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}, 1)
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
            if done.returncode:
                wrong[who] = (done.stderr.strip().splitlines() or ["no message"])[-1]
            else:
                for case, row in json.loads(done.stdout.splitlines()[-1]).items():
                    found.setdefault((who, case), []).append(row)
    return found, wrong


def summary(name, found):
    """Rows for the report. The list form is cold only where there is no other: minillm's array form comes before it."""
    rows = []
    for (who, case), runs in found.items():
        text, form = case.split("/")
        if ("minillm", f"{text}/array") not in found:
            continue
        right = found["minillm", f"{text}/array"][0]
        rows.append({"vocabulary": name, "text": text, "form": form, "who": who,
                     "cold": None if (who, form) == ("minillm", "list") else max(
                         run["bytes"] / run["seconds"][0] for run in runs) / 1e6,
                     "warm": float(np.median([run["bytes"] / s for run in runs for s in run["seconds"][1:]])) / 1e6,
                     "same_ids": all(run["tenth"] == right["tenth"] and (
                         who in SLOW or run["digest"] == right["digest"]) for run in runs), "runs": runs})
    return rows


def check(parser, options):
    """End at once, with a message, where nothing could be measured, or its result not be written."""
    if missing := next((file for file in options.files if not Path(file).is_file()), None):
        parser.error(f"{missing}: there is no such file")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1: got {options.rounds}")
    if options.texts and not any(options.texts.glob("*.txt")):
        parser.error(f"--texts {options.texts}: there are no *.txt in it")
    if options.out and not options.out.resolve().parent.is_dir():
        parser.error(f"--out {options.out}: there is no such folder")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="tokenizer.json")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="of other texts, *.txt")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return time_all(options.one[0], options.files[0], options.one[1], float(options.one[2]))
    check(parser, options)
    rows, skipped = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in () if options.texts else (("cjk", cjk), ("prose and code", prose_and_code)):
            (Path(folder) / f"{name}.txt").write_bytes(make().encode("utf-8"))
        for file in options.files:
            name = Path(file).resolve().parent.name
            found, skipped[name] = measure(file, str(options.texts or folder), options.rounds, options.seconds)
            for row in summary(name, found):
                rows.append(row)
                cold = f"cold {row['cold']:6.1f}  " if row["cold"] else " " * 13
                print(f"{name:<10}{row['text']:<16}{row['form']:<7}{row['who']:<12}{cold}warm {row['warm']:6.1f} MB/s  "
                      f"same ids: {row['same_ids']}", flush=True)
    for name, wrong in skipped.items():
        for who, message in wrong.items():
            print(f"{name:<10}{who}: {message}")
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(1), "rows": rows, "skipped": skipped}, indent=1) + "\n",
                               encoding="utf-8")


if __name__ == "__main__":
    main()
