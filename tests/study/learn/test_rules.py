"""The stages of a function that is judged by cases: the rule that is broken, the kind of its results, the contract."""
import numpy as np
import pytest

from minillm.study.learn.exercise import Wrong
from minillm.study.learn.rules import by_cases, difference


def double(x):
    return 2 * x


def push(items):
    items.append(0)


def double_cases(yours):
    yield "double must be twice", yours.double(np.arange(3.0)), np.array([0.0, 2.0, 4.0])
    yield "2 must become 4, an int", yours.double(2), 4
    yield "nearly is enough", yours.double(1.0), 2.0001, 1e-3
    yield "an empty array stays empty", yours.double(np.zeros(0)).size == 0


def push_cases(yours):
    items = [1]
    yours.push(items)
    yield "push must append a 0", items, [1, 0]


class Yours:
    """A learner's file."""

    __file__ = __file__

    def __init__(self, **functions):
        vars(self).update(functions)


def verdict(yours, cases=double_cases, **settings):
    """What each stage says, up to the first that refuses."""
    said = {}
    for stage, check in by_cases(cases, **settings):
        try:
            said[stage] = check(yours, None)
        except Wrong as wrong:
            return {stage: str(wrong)}
    return said


def test_what_is_right_passes_all_stages():
    said = verdict(Yours(double=double))
    assert said["values"] == "right in 4 cases" and said["contract"] == "the same result twice, arguments left alone"
    assert said["speed"].startswith("4 calls: yours ")
    assert list(verdict(Yours(push=push), push_cases, in_place=True, returns=False)) == ["values", "contract", "speed"]


@pytest.mark.parametrize("function, words", [
    (lambda x: 3 * x, "double must be twice (the result[1] is 3, right is 2"),
    (lambda x: x + x if isinstance(x, np.ndarray) else 5, "2 must become 4, an int (the result is 5, right is 4)"),
    (lambda x: np.zeros(1) if np.size(x) == 0 else 2 * x, "an empty array stays empty"),
    (lambda x: None, "double returns None: is a `return` missing?"),
    (lambda x: [2 * value for value in x], "must be an array of shape (3,): got a list"),
    (lambda x: (2 * x).astype(np.float32) if isinstance(x, np.ndarray) else 2 * x, "must be float64: got float32"),
    (lambda x: "twice", "must be an array"),
])
def test_the_first_rule_that_is_broken_is_told(function, words):
    assert words in verdict(Yours(double=function))["values"]


def test_results_of_a_wrong_kind_are_no_crash_of_the_judge():
    def unpacked(yours):
        one, two = yours.double(np.arange(3.0))
        yield "never", one, two
    said = verdict(Yours(double=double, __file__="mine.py"), unpacked)
    assert "what double returns is not what the task asks for" in said["values"]


def test_an_exception_of_the_learner_is_his():
    def fails(x):
        raise ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        verdict(Yours(double=fails))


def test_writing_and_remembering_break_the_contract():
    def writes(x):
        if isinstance(x, np.ndarray):
            x *= 2
            return x.copy()
        return 2 * x

    def remembers(x, seen=[]):                      # noqa: B006
        seen.append(x)
        return 2 * x + (len(seen) > 8 and len(seen) % 2)
    assert "writes into its arguments" in verdict(Yours(double=writes))["contract"]
    assert "contract" in verdict(Yours(double=writes), in_place=True)
    assert "it remembers something" in verdict(Yours(double=remembers))["contract"]


@pytest.mark.parametrize("got, want, words", [
    (np.array([1, 2], np.uint32), np.array([1, 3], np.uint32), "[1] is 2, right is 3"),
    (np.array([4e9, 1], np.uint32), np.array([4e9, 2], np.uint32), "[1] is 1, right is 2"),
    ([1, 2], [1, 2, 3], "it is [1, 2], right is [1, 2, 3]"), ({1}, {1, 2}, "right is {1, 2}"),
    (1.0 + 1e-6, 1.0, "right is 1"), (True, 1.0, "must be a number"), (float("nan"), 1.0, "right is 1"),
])
def test_differences(got, want, words):
    assert words in difference(got, want)


@pytest.mark.parametrize("got, want", [
    (1.0 + 1e-12, 1.0), (np.float64(1), 1.0), (np.array(1.0), 1.0), (2, 2.0), ((1, 2), [1, 2]), (np.int64(3), 3),
    ([np.zeros(2)], [np.zeros(2)]), (float("inf"), float("inf")), ({(1, 2)}, {(1, 2)}),
])
def test_what_is_the_same(got, want):
    assert difference(got, want) == ""
