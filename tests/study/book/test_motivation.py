"""What an op's chapter says of its use is what the code does."""
import pytest

from minillm.ops.table import OPS
from minillm.study.book.blocks import Span, plain
from minillm.study.book.listings import ROOT
from minillm.study.book.motivation import called_in, motivation, shares


def test_callers():
    found = called_in(OPS["layernorm"])
    lines = (ROOT / "minillm" / "models" / "gpt2.py").read_text(encoding="utf-8").splitlines()
    assert found["minillm/models/gpt2.py"] and all(
        "layernorm_" in lines[number - 1] for number in found["minillm/models/gpt2.py"])


def test_shares_of_a_step():
    assert sum(shares().values()) == pytest.approx(1) and shares()["linear"] > shares()["layernorm"] > 0
    (words, *_) = motivation(OPS["dpo_loss"], "dpo-loss", [])
    *_, chapters = motivation(OPS["attention"], "attention", ["history", "transformer"])
    assert chapters.spans[1] == Span("ref", "transformer")
    assert "does not call it by itself" in plain(words.spans)
