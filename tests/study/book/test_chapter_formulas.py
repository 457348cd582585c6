"""The formulas that the book's chapters add to the docstrings': each parses, is what the package computes, and a
mistake in it is seen. Sums with numbers alone are right to the digits that are printed."""
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from formula_checks import mistakes, mutants
from formulas_of_chapters import DEFINITIONS, VALUES

import minillm
from minillm.gradcheck import second_order
from minillm.models import gpt2, quantized
from minillm.ops.table import FILES
from minillm.study.formulas import formulas_of, parse, to_mathml, to_typst, trees
from minillm.study.formulas.evaluate import value_of

CHAPTERS = Path(minillm.__file__).parent / "study" / "book" / "chapters"


@cache
def formulas():
    """[(chapter, formula, whether it is displayed)]"""
    found = []
    for path in sorted(CHAPTERS.glob("*.md")):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
        blocks = re.findall(r"\$\$(.*?)\$\$", text, flags=re.S)
        lines = [re.sub(r"\{#.*?\}", "", line).strip() for block in blocks for line in block.split("\n")]
        found += [(path.stem, line, True) for line in lines if line]
        rest = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
        found += [(path.stem, " ".join(words.split()), False) for words in re.findall(r"(?<!\\)\$([^$]+)\$", rest)]
    return found


def same(tree):
    """A tree without what makes no difference: brackets, kinds of product, <- for =, which LayerNorm it is."""
    match tree:
        case trees.Group(value, "("):
            return same(value)
        case trees.Binary(sign, left, right):
            return trees.Binary(sign or "*", same(left), same(right))
        case trees.Call(function, arguments):
            return ("layernorm" if function.startswith("ln_") else function, *map(same, arguments))
        case trees.Relation(sides, signs, where):
            return (tuple(map(same, sides)), tuple("=" if sign == "<-" else sign for sign in signs), where)
    if hasattr(tree, "_fields"):
        return type(tree)(*map(same, tree))
    return tuple(map(same, tree)) if isinstance(tree, tuple) else tree


@cache
def docstrings():
    """The formulas of the docstrings that are compared in test_op_formulas and test_room_formulas."""
    modules = [*FILES.values(), gpt2, quantized, second_order]
    return {repr(same(parse(formula.text))) for module in modules for formula in formulas_of(module.__doc__)}


def displayed():
    return sorted({text for _, text, is_displayed in formulas() if is_displayed})


def test_each_displayed_formula_is_compared_or_a_definition():
    """A new one needs values in tests/formulas_of_chapters.py, or there the reason why it has none."""
    unknown = [text for text in displayed() if repr(same(parse(text))) not in docstrings()
               and text not in VALUES and text not in DEFINITIONS]
    assert not unknown


def cases_of(text):
    found = VALUES[text]()
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("text", VALUES)
def test_a_displayed_formula_is_what_the_package_computes(text):
    assert not any(mistakes([text], *case) for case in cases_of(text))


@pytest.mark.parametrize("text", VALUES)
def test_a_mistake_is_seen(text):
    cases = cases_of(text)

    def seen(mutant):
        try:
            with np.errstate(all="ignore"):
                return any(mistakes([mutant], *case) for case in cases)
        except (ValueError, IndexError, TypeError):
            return True
    assert not [mutant for mutant in mutants(parse(text)) if not seen(mutant)]


def test_all_are_set():
    for _, text, is_displayed in formulas():
        assert to_typst(text, is_displayed) and to_mathml(text, is_displayed)


def digits(tree):
    """How far a printed number may be off: half a unit of its last decimal, relative to it; of whole ones, nothing."""
    decimals = [part.text for part in trees.walk(tree) if isinstance(part, trees.Number) and "." in part.text]
    return max((0.5 * 10.0 ** -len(text.split(".")[1]) / float(text) for text in decimals), default=0) + 1e-12


def wrong_sums(text):
    """The equalities between numbers alone in a formula that do not hold."""
    tree = parse(text)
    if not isinstance(tree, trees.Relation):
        return []
    closed = [(left, right) for left, sign, right in zip(tree.sides, tree.signs, tree.sides[1:]) if sign == "="
              and not any(isinstance(part, trees.Name) for side in (left, right) for part in trees.walk(side))]
    pairs = [(value_of(left, {}), value_of(right, {}), digits(right)) for left, right in closed]
    return [text for left, right, relative in pairs if abs(left - right) > relative * abs(right)]


def test_sums_are_right():
    assert not [wrong for _, text, _ in formulas() for wrong in wrong_sums(text)]
    assert wrong_sums("2.9 / 3 = 0.96") and not wrong_sums("2.9 / 3 = 0.97") and wrong_sums("2 * 3 = 7")
