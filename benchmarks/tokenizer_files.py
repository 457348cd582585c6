"""One's own tokenizer.json files against Hugging Face's `tokenizers`: ids that differ, and CPU time, one thread.

    python -m benchmarks.tokenizer_files --text FOLDER [--bytes 1000000] tokenizer.json ...

FOLDER holds UTF-8 texts, of each of which the first --bytes are encoded, special tokens included.
"""
import argparse
import time
from pathlib import Path

import numpy as np

from minillm.tokenizer import Tokenizer


def compare(file, texts):
    """(megabytes, ids, texts that differ, seconds of minillm, seconds of tokenizers)."""
    import tokenizers
    ours, theirs = Tokenizer.from_pretrained(file), tokenizers.Tokenizer.from_file(str(file))
    clock, count, wrong, seconds = time.process_time, 0, 0, np.zeros(2)
    for text in texts:
        start = clock()
        found = ours.encode_array(text, "all")
        middle = clock()
        ids = theirs.encode(text, add_special_tokens=False).ids
        seconds += middle - start, clock() - middle
        count += len(ids)
        wrong += found.tolist() != ids
    return sum(len(text.encode()) for text in texts) / 1e6, count, wrong, *seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="tokenizer.json")
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    options = parser.parse_args()
    paths = sorted(path for path in options.text.rglob("*") if path.is_file())
    texts = [path.read_bytes()[:options.bytes].decode("utf-8", "ignore") for path in paths]
    for file in options.files:
        size, count, wrong, ours, theirs = compare(file, texts)
        print(f"{file}: {size:.0f} MB, {count:,} ids, {wrong} of {len(texts)} texts differ; "
              f"minillm {size / ours:.0f} MB/s, tokenizers {size / theirs:.1f}, {theirs / ours:.0f}x", flush=True)


if __name__ == "__main__":
    main()
