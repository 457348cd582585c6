"""The formulas of all other rooms' docstrings are what the functions beside them give: none is left out."""
import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from formula_checks import mistakes, planted
from formulas_of_rooms import VALUES

import minillm
from minillm.study.formulas import formulas_of

PACKAGE = Path(minillm.__file__).parent

# What stands in a block, has a sign of equality and is no formula that could be computed, and why.
TEXT = {
    "out, cache = forward(*inputs)": "code", "grads      = backward(dout, cache)": "code",
    "out, cache = op_forward(*inputs)": "code", "dinputs    = op_backward(dout, cache)": "code",
    "inputs; no view": "words", "g(a d) = a g(d)": "a property of any backward; gradcheck.contract tests it",
    "loss = mean over": "words, which name the loss", "H(story) = sum over": "over choices, which have no numbers",
    "allowed(row) = ": "a bound, with words in it", "|fl(sum) - sum| <=": "a bound",
    "of n in total; z = 1.96": "a constant", "R = 15.39": "a constant", "complex:": "a constant",
    "// sizes: C % 4 == 0": "code"}


@cache
def all_docstrings():
    """{"path" or "path::function": its docstring} of the package but for study/, which repeats what is elsewhere."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if not name.startswith("study/") else ():
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                found[name if isinstance(node, ast.Module) else f"{name}::{node.name}"] = ast.get_docstring(node) or ""
    return found


@cache
def docstrings():
    """{place: texts of its formulas} outside ops/."""
    return {place: [formula.text for formula in formulas_of(docstring)] for place, docstring in all_docstrings().items()
            if not place.startswith("ops/") and formulas_of(docstring)}


def test_what_is_left_of_a_block_is_no_formula():
    """A formula that does not parse would be text, and nobody would miss it."""
    left = []
    for docstring in all_docstrings().values():
        lines = docstring.split("\n")
        for formula in reversed(formulas_of(docstring)):
            line = lines[formula.line - 1]
            lines[formula.line - 1] = line[:formula.first] + line[formula.last:]
        left += [line.strip() for line in lines if line.startswith("    ") and re.search(" (=|<=|<-|~) ", line)]
    assert not [line for line in left if not line.startswith(tuple(TEXT))]
    assert all(any(line.startswith(text) for line in left) for text in TEXT)


def test_every_docstring_with_formulas_is_compared():
    assert set(docstrings()) == set(VALUES)


@pytest.mark.parametrize("place", VALUES)
def test_formulas_are_what_the_functions_give(place):
    for values, expected in VALUES[place]():
        assert not mistakes(docstrings()[place], values, expected)


@pytest.mark.parametrize("place", VALUES)
def test_a_mistake_in_any_formula_is_seen(place):
    texts, cases, missed = docstrings()[place], list(VALUES[place]()), []
    for at, text in enumerate(texts):
        for mutant in planted(text):
            try:
                with np.errstate(all="ignore"):
                    if not any(mistakes([*texts[:at], mutant, *texts[at + 1:]], *case) for case in cases):
                        missed.append((text, mutant))
            except (ValueError, IndexError, TypeError):
                pass
    assert not missed
