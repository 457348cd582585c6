"""Typesetting changes no meaning: read back as it is set, with the brackets that it shows, a formula has the same
value."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.study.formulas import evaluate
from minillm.study.formulas.layout import Fence, Fraction, Mark, Root, Row, Script, layout

VALUES = {"a": 1.3, "b": 0.7, "c": 2.1, "x": 0.4}
READ = {"−": "-", "⋅": "*", "⊙": "*"}


def read(box):
    """The plain formula that boxes show: a fraction's line and an exponent's height are brackets, nothing else is."""
    match box:
        case Mark(kind, text):
            return "" if kind == "space" else READ.get(text, text)
        case Row(items):
            return " ".join(map(read, items))
        case Fraction(top, bottom):
            return f"(({read(top)}) / ({read(bottom)}))"
        case Script(base, None, above):
            return f"{read(base)}^({read(above)})"
        case Root(body):
            return f"sqrt({read(body)})"
        case Fence(left, body, right):
            return f"({left}{read(body)}{right})"           # a |b| is a product to a reader, but none as it is written
    raise TypeError(box)


formulas = st.recursive(st.sampled_from(["a", "b", "c", "x", "2", "3.5", "2a"]), lambda inside: st.one_of(
    st.builds("{} {} {}".format, inside, st.sampled_from("+-*/"), inside),
    st.builds("{} {}".format, st.sampled_from("abc"), inside.filter(lambda text: text[0] in "abcx(")),
    st.builds("({})".format, inside), st.builds("|{}|".format, inside), st.builds("-{}".format, inside),
    st.builds("({})^{}".format, inside, st.sampled_from(["2", "-1", "(a + b)", "a"])),
    st.builds("{} * -{}".format, inside, inside), st.builds("log |{}|".format, inside),
    st.builds("sqrt(|{}|)".format, inside)), max_leaves=8)


@given(formulas, st.booleans())
def test_what_is_set_has_the_value_of_what_is_written(text, display):
    with np.errstate(all="ignore"):
        try:
            wanted = evaluate(text, VALUES)
        except ValueError:                                  # "-a" behind "b" is a difference, "--a" nothing
            return
        assert evaluate(read(layout(text, display)), VALUES) == pytest.approx(wanted, rel=1e-9, nan_ok=True)


def test_a_lost_bracket_would_be_seen():
    assert read(layout("a / (b * c)", False)) == "a / ((b c))"
    assert evaluate("a / b c", VALUES) != evaluate("a / (b * c)", VALUES)
