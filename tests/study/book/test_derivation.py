"""The docstring of an op as paragraphs and numbered equations: nothing of it is lost."""
import re

import pytest

from minillm.ops.table import FILES
from minillm.study.book.blocks import Code, Formula, Paragraph, Span
from minillm.study.book.derivation import blocks_of
from minillm.study.book.formula import formulas_in_prose
from minillm.study.book.numbering import spans_in
from minillm.study.formulas import formulas_of

DOCSTRING = """Half of `x`, by arXiv 1606.08415.

For a row x of "C" numbers:

    directly:   out = x / 2      dx = dout / 2  ->  half
    s = sum(x)

so dx = dout / 2 as well.
"""


def test_a_small_one():
    first, prose, a, b, last = blocks_of(DOCSTRING, "half-eq")
    assert first.spans[1:4] == [Span("code", "x"), Span("text", ", by "),
                                Span("see", ("source-hendrycks2016", "arXiv 1606.08415"))]
    assert Span("math", "x") in prose.spans and "“C”" in prose.spans[-1].value + prose.spans[-2].value
    assert a == Formula([Span("text", "directly:"), Span("math", "out = x / 2"), Span("math", "dx = dout / 2"),
                         Span("text", "→ half")], "half-eq-out")
    assert b.label == "half-eq-s"
    assert Span("math", "dx = dout / 2") in last.spans


@pytest.mark.parametrize(("sentence", "formulas"), [
    ("out = sum over the tokens of p", []),                 # words of the sentence, not of a formula
    ("dx = x * (p - p.sum(axis=-1)).", []),              # half of it would be another formula
    ("Then out = x + that.", []),
    ("So dx = dout / 2, dout = x.", ["dx = dout / 2", "dout = x"]),
])
def test_a_formula_in_a_sentence_is_whole_or_none(sentence, formulas):
    found = [formula.text for formula in formulas_in_prose(DOCSTRING, sentence, 1)]
    assert [text for text in found if " " in text] == formulas


@pytest.mark.parametrize("op", FILES)
def test_nothing_is_lost(op):
    """Every letter of the docstring is in the blocks, in its order; each formula of an indented line is an equation."""
    docstring = FILES[op].__doc__
    blocks = blocks_of(docstring, op)
    text = ""
    for block in blocks:
        for span in [Span("text", block.text)] if isinstance(block, Code) else spans_in(block):
            text += span.value[1] if span.kind == "see" else span.value
    assert letters(text) == letters(docstring)
    shown = [span.value for block in blocks if isinstance(block, Formula) for span in block.spans
             if span.kind == "math"]
    assert shown == [formula.text for formula in formulas_of(docstring)]
    assert any(isinstance(block, Paragraph) for block in blocks)


def letters(text):
    return re.sub(r"[\s`\"“”.,;'‘’]", "", text.replace("→", "->"))
