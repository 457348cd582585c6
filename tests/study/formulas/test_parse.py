"""The grammar: what binds more than what, what is a formula in a docstring, and what a wrong one is told."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.study.formulas import evaluate, formulas_of, parse, to_mathml, to_typst

VALUES = {"a": 2.0, "b": 3.0, "c": 5.0, "x": [1.0, 2.0, 4.0], "n": 4, "i": 1, "f": lambda z: 10 * z}
NUMBERS = {
    "a + b * c": 17, "a - b - c": -6, "a / b / c": 2 / 15, "a * b / c": 6 / 5, "-a^2": -4, "a^-b": 1 / 8, "a^b^a": 512,
    "2 a b": 12, "a / 2b": 1 / 3, "2a^2": 8, "f(a) b": 60, "a (b + c)": 16, "sum over j of x[j] * a": 14,
    "sum over j of x[j] + a": 9, "sum over j < 2 of x[j]": 3, "mean over j of x[j] * b": 7, "1[a < b < c] + 1": 2,
    "a if a > b else c": 5, "a if a > b else b if b > c else c": 5, "|a - b|": 1, "log exp(a)": 2, "x[i + 1]": 4,
    "max(x) - min(x)": 3, "sum(x)^2": 49, "1.5e2": 150, "product over j of x[j]": 8, "sqrt 4": 2}


@pytest.mark.parametrize("text", NUMBERS)
def test_what_binds_more(text):
    assert evaluate(text, VALUES) == pytest.approx(NUMBERS[text], rel=1e-15)


WRONG = {"a +": "the end", "a b)": "'\\)' at column 4", "(a": "\\)", "x[1": "\\]", "a = = b": "'='",
         "a § b": "'§', at column 3", "sum over i x": "of", "1 if a": "relation|else", "": "the end", "of a": "'of'"}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_formula_is_told_where(text):
    with pytest.raises(ValueError, match=WRONG[text]):
        parse(text)


@given(st.text(alphabet="abxd012 .,+-*/@^=<>()[]|~_T:", max_size=30) | st.text(max_size=12))
def test_any_text_parses_or_is_refused(text):
    try:
        tree = parse(text)
    except ValueError:
        return
    assert tree and to_typst(text) and to_mathml(text)


DOCSTRING = """First line, with a = b in it.

    out = x^3          dout/dx = 3 x^2,   dx = dout * dout/dx        x (N, C)
    ours[t]   = sum over s of
    out[n, j] = bias[j]  +  x[n, j]     ->  ours = x + 1
    three words = these
    name: 12           n=1        x * weight, where it stands

And words.
"""


def test_formulas_are_found_between_words():
    found = formulas_of(DOCSTRING)
    assert [(formula.line, formula.text) for formula in found] == [
        (3, "out = x^3"), (3, "dout/dx = 3 x^2"), (3, "dx = dout * dout/dx"),
        (5, "out[n, j] = bias[j] + x[n, j]"), (5, "ours = x + 1")]
    line = DOCSTRING.split("\n")[4]
    assert " ".join(line[found[3].first:found[3].last].split()) == found[3].text


def test_a_block_alone():
    """Taken out of its function, such a docstring has no indent left."""
    assert formulas_of("The norm.\n\n    norm = sqrt(sum(g^2))\n    ")[0].text == "norm = sqrt(sum(g^2))"
    assert not formulas_of("Only words.\n\nAnd more of them, in a line.\n") and not formulas_of(None)


def test_names_without_a_value_are_named():
    with pytest.raises(ValueError, match="z has no value"):
        evaluate("a + z", VALUES)
    with pytest.raises(ValueError, match="g is no function"):
        evaluate("g(a)", VALUES)
    with pytest.raises(ValueError, match="index j must stand"):
        evaluate("sum over j of a", VALUES)
