"""Each formula in an op's docstring, computed from the op's sample inputs, is what the functions beside it give."""
from functools import cache

import numpy as np
import pytest
from formula_checks import mistakes, mutants
from formulas_of_ops import ELSEWHERE, NAMES, VALUES, called

from minillm.ops.table import FILES, OPS
from minillm.study.formulas import formulas_of, parse, steps


@cache
def texts_of(op):
    return [formula.text for formula in formulas_of(FILES[op].__doc__)]


@pytest.mark.parametrize("op", OPS)
def test_formulas_are_what_the_functions_give(op):
    for values, expected in VALUES[op](called(op)):
        assert not mistakes(texts_of(op), values, expected)


@pytest.mark.parametrize("op", OPS)
def test_no_result_is_left_out(op):
    """The forward's result and the gradient of every argument that has one are given by a formula, and compared."""
    values, expected = next(VALUES[op](called(op)))
    given = {step.name for step in steps(texts_of(op), values)}
    wanted = {name for argument in OPS[op].differentiable for name in NAMES.get(op, {}).get(f"d{argument}", (f"d{argument}",))}
    assert wanted - set(ELSEWHERE.get(op, ())) <= given & set(expected)
    assert {name for name in expected if not name.endswith(" last")} <= given
