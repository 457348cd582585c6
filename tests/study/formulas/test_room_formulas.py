"""The formulas of all other rooms' docstrings are what the functions beside them give: none is left out."""
import ast
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from formula_checks import mistakes, planted
from formulas_of_rooms import VALUES

import minillm
from minillm.study.formulas import formulas_of

PACKAGE = Path(minillm.__file__).parent


@cache
def docstrings():
    """{"path" or "path::function": texts of its formulas} of all docstrings with formulas outside ops/."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                texts = [formula.text for formula in formulas_of(ast.get_docstring(node))]
                if texts and name.split("/")[0] not in ("ops", "study"):
                    found[name if isinstance(node, ast.Module) else f"{name}::{node.name}"] = texts
    return found


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
