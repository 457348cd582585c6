"""Each formula in an op's docstring, computed from the op's sample inputs, is what the functions beside it give."""
from functools import cache

import numpy as np
import pytest
from formula_checks import mistakes, planted
from formulas_of_ops import ELSEWHERE, NAMES, values_of

from minillm.ops.table import FILES, OPS
from minillm.study.formulas import formulas_of, steps


@cache
def texts_of(op):
    return [formula.text for formula in formulas_of(FILES[op].__doc__)]


@pytest.mark.parametrize("op", OPS)
def test_formulas_are_what_the_functions_give(op):
    for values, expected in values_of(op):
        assert not mistakes(texts_of(op), values, expected)


@pytest.mark.parametrize("op", OPS)
def test_no_result_is_left_out(op):
    """The forward's result and the gradient of every argument that has one are given by a formula, and compared."""
    values, expected = next(values_of(op))
    given = {step.name for step in steps(texts_of(op), values)}
    gradients, names = [f"d{argument}" for argument in OPS[op].differentiable], NAMES.get(op, {})
    wanted = {name for gradient in gradients for name in names.get(gradient, (gradient,))}
    assert wanted - set(ELSEWHERE.get(op, ())) <= given & set(expected)
    assert {name for name in expected if " " not in name} <= given


def caught(trees, cases):
    """Whether formulas with a mistake differ from the functions, or cannot be computed at all."""
    try:
        with np.errstate(all="ignore"):
            return any(mistakes(trees, values, expected) for values, expected in cases)
    except (ValueError, IndexError, TypeError):
        return True


@pytest.mark.parametrize("op", OPS)
def test_a_mistake_in_any_formula_is_seen(op):
    """A wrong sign, a dropped factor, another index, a missing transpose, ...: each alone, in each formula."""
    texts, cases = texts_of(op), [case for seed in range(3) for case in values_of(op, seed)]
    tried = [(text, mutant, [*texts[:place], mutant, *texts[place + 1:]])
             for place, text in enumerate(texts) for mutant in planted(text)]
    missed = [(text, mutant) for text, mutant, trees in tried if not caught(trees, cases)]
    assert not missed


def test_how_many_formulas_and_mistakes_there_are():
    """So that a docstring which no longer parses does not pass by saying nothing."""
    texts = [text for op in OPS for text in texts_of(op)]
    assert len(texts) >= 110 and sum(len(planted(text)) for text in texts) >= 700
