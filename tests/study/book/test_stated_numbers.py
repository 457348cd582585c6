"""Numbers that the prose states as computed are computed here again; each with the words around it."""
import json
import math
import re
from pathlib import Path

import pytest

import minillm.study.book as book
from minillm.config import GPTConfig
from minillm.data.dedup.minhash import Lsh
from minillm.data.sources.stories import entropy_bits, expected_bytes
from minillm.evaluate.statistics import share_interval, sign_test
from minillm.generation.speculative import theoretical_speedup
from minillm.models.quantized import to_bfloat16, to_int8
from minillm.study.book.figures.int8_error import matrices, relative
from minillm.study.book.figures.measured import newest
from minillm.study.book.figures.scaling_law import best
from minillm.study.book.figures.stories_run import recorded
from minillm.study.book.results import RESULTS
from minillm.study.book.tables.flops_124m import six_n_p_share
from minillm.train.memory import count_parameters
from minillm.workbench.plan import PRESETS, serving_memory

CHAPTERS = Path(book.__file__).parent / "chapters"
LARGE = GPTConfig(**PRESETS["124M"])
SMALL = GPTConfig(n_layer=4, n_head=4, n_embd=96, vocab_size=4096, block_size=256)


def attended(layer, head, query, key):
    """Weight of the first such pair of tokens in the recorded run."""
    words = recorded()["tokens"]
    return recorded()["attention"][layer][head][words.index(query)][words.index(key)]


def losses_of_demo():
    """Mean validation losses of the demo, float32 and bfloat16, in the newest result."""
    rows = [row for row in newest("demo").rows if row["op"] == "demo"]
    return {row["candidate"]: row["val_loss"] for row in rows}


STATED = [      # chapter, the words with the number, what it is
    ("language-models", "10.82 nats", lambda: math.log(LARGE.vocab_size)),
    ("language-models", "65.04 bits", entropy_bits),
    ("language-models", "504.6 bytes", expected_bytes),
    ("language-models", "0.1289 bits per byte", lambda: entropy_bits() / expected_bytes()),
    ("language-models", "0.918 + 1.459", lambda: -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))),
    ("language-models", "= 1.31$", lambda: 2.9 / (math.log(2) * 3.2)),
    ("language-models", "= 1.23$", lambda: 3.5 / (math.log(2) * 4.1)),
    ("transformer", "weights 0.63", lambda: attended(1, 3, " She", " called")),
    ("transformer", "and 0.50", lambda: attended(1, 3, " she", " called")),
    ("transformer", "= 865344", lambda: count_parameters(SMALL)),
    ("micro", "834,304", lambda: count_parameters(GPTConfig(n_layer=4, n_head=4, n_embd=128, vocab_size=256,
                                                             block_size=64))),
    ("data", "$s = 0.674$", lambda: (1 - 2 ** (-1 / 16)) ** (1 / 8)),
    ("data", "= 0.707$", lambda: (1 / 16) ** (1 / 8)),
    ("post-training", "= 294912$", lambda: 12 * 8 * (768 + 2304)),
    ("training", "1.9291 in bfloat16", lambda: losses_of_demo()["minillm bf16"]),
    ("training", "1.9291 in float32", lambda: losses_of_demo()["minillm"]),
    ("evaluation", "from 0.699", lambda: share_interval(18, 20)[0]),
    ("evaluation", "to 0.972", lambda: share_interval(18, 20)[1]),
    ("evaluation", "= 0.109$", lambda: sign_test([True] * 8 + [False] * 2, [False] * 8 + [True] * 2)),
    ("decoding", "73,728", lambda: serving_memory(LARGE, 1)["kv_cache"] / LARGE.block_size),
    ("decoding", "of 768 is 0.8%", lambda: 100 * relative(matrices()["normal"], to_int8(matrices()["normal"]))),
    ("decoding", "bfloat16's 0.17%", lambda: 100 * relative(matrices()["normal"], to_bfloat16(matrices()["normal"]))),
    ("decoding", "= 2.40$", lambda: theoretical_speedup(0.8, 4, 0.1)),
    ("decoding", "with 2.47", lambda: theoretical_speedup(0.8, 6, 0.1)),
    ("costs", "1.185 times", six_n_p_share),
    ("costs", "26 tokens", lambda: best(1e18)[1]),
]


def number_in(words):
    """The last number of a few words."""
    found = [word.strip("$=.,%'s") for word in words.replace(",", "").split()]
    return [word for word in found if word.replace(".", "", 1).isdigit()][-1]


@pytest.mark.parametrize(("chapter", "words", "compute"), STATED, ids=[f"{c}: {w}" for c, w, _ in STATED])
def test_a_stated_number_is_the_computed_one(chapter, words, compute):
    text = " ".join((CHAPTERS / f"{chapter}.md").read_text(encoding="utf-8").split())
    assert words in text
    stated = number_in(words if "+" not in words else words.split("+")[0])
    digits = len(stated.partition(".")[2])
    assert f"{float(compute()):.{digits}f}" == stated


def test_the_ridge_of_the_roofline_is_where_the_text_says():
    peaks = newest("linear").peaks
    assert round(peaks["float32"]["gflops"] / peaks["memory"]["gbs"]) == 4


def test_the_s_curve_is_one_half_there():
    assert Lsh(16, 8).found(0.674) == pytest.approx(0.5, abs=0.005)


def test_rewards_and_right_answers_are_those_of_the_committed_result():
    path = RESULTS / "2026-11-21-grpo.json"
    first = json.loads(path.read_text(encoding="utf-8"))["rows"][0]
    text = " ".join((CHAPTERS / "post-training.md").read_text(encoding="utf-8").split())
    assert f"rose from {first['first']:.2f} to {first['last']:.2f}" in text
    assert f"rose from {first['held_out_before']:.3f} to {first['held_out_after']:.3f}" in text


def figures_of(text):
    """Decimal numbers of a text that are no part of a formula: "0.228", "2.21"."""
    return re.findall(r"(?<![\d.^(])\d+\.\d+(?![\d.]*\))", re.sub(r"\$[^$]*\$", "", text))


def sentences_on_the_log():
    """(chapter, sentence) for each sentence of the prose that refers to the log; all of history does."""
    for path in sorted(CHAPTERS.glob("*.md")):
        text = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("{"))
        for sentence in re.split(r"(?<=[.:?!])\s+(?=[A-Z*|{-])", text):
            if path.stem == "history" or re.search(r"\b[Tt]he log\b(?! of)|\blog's\b", sentence):
                yield path.stem, sentence


def test_figures_that_the_prose_takes_from_the_log_stand_there():
    log = RESULTS.parent / "LOG.md"
    known = set(re.findall(r"\d+\.\d+", log.read_text(encoding="utf-8")))
    rounded = {"2.21"}                                                   # 2.214
    found = [(chapter, figure) for chapter, sentence in sentences_on_the_log() for figure in figures_of(sentence)]
    assert len(found) > 60
    assert [pair for pair in found if pair[1] not in known | rounded] == []
