"""Gradient checkers of others, where they are installed, beside ours: they are asked about the same pairs."""
import pytest

from benchmarks import gradcheck as score
from benchmarks.gradient_checkers import CHECKERS, complaint
from benchmarks.planted import USUAL, numbered, right_pair
from minillm.kernels.select import OPS


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_others_get_the_same_pairs(name):
    """They pass what is right in units of 1, and find a sign."""
    pytest.importorskip(name)
    signs = {case.op: case for case in reversed(list(numbered())) if case.kind == "sign"}         # the first of each op
    assert set(signs) == {op for op, spec in OPS.items() if spec.kind == "pair"}
    for op, sign in signs.items():
        right = right_pair(op, USUAL)
        assert complaint(CHECKERS[name], right) is None, op
        assert score.found(complaint(CHECKERS[name], sign._replace(right=lambda r=right: r).pair())), op
