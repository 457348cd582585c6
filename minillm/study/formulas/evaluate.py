"""Formulas as numbers: what a docstring says, computed by NumPy, so that a test can hold it against the code beside it.

An equation with indices on its left is computed element by element, for all values that they take in the arrays on its
right; without indices by whole arrays, of which sum, mean, max and so on take each row. Numbers may be complex, so that
the complex step checks derivatives.
"""
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import trees
from .parse import parse
from .symbols import is_gradient

Values = dict[str, Any]


class Step(NamedTuple):
    """One side of an equation, computed. name: what it gives, as `dx` or `dout/dx`; None for a formula without one.

    exact: no ~ stands before it. left: what a known function on the left gives, which the value should equal.
    """
    text: Any
    name: str | None
    value: Any
    exact: bool = True
    left: Any = None


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """The number, or the array, that a formula gives: what is on the right of its last sign.

    values: what its names stand for, arrays, numbers and functions. Raises ValueError for a name without a value.
    """
    return list(steps([text], values))[-1].value


def steps(texts: Iterable[Any], values: Mapping[str, Any], held: Iterable[str] = ()) -> Iterator[Step]:
    """Formulas, or their trees, one after the other, each with what those before it have given.

    held: names that keep their value.
    """
    known = dict(values)
    for text in texts:
        yield from step(text, parse(text) if isinstance(text, str) else text, known, set(held))


def step(text: Any, tree: Any, known: Values, held: set) -> Iterator[Step]:
    """The steps of one formula: those of `a = b = value` give a and b, those of `a = value = other` give a twice."""
    if not isinstance(tree, trees.Relation) or tree.signs[0] not in ("=", "<-", "+=", "~"):
        yield Step(text, None, value_of(tree, known))
        return
    left, *rest = tree.sides
    if not is_place(left):                                              # u . v = v . u says that both are equal
        yield from (Step(text, None, value_of(side, known), sign != "~", value_of(left, known))
                    for sign, side in zip(tree.signs, rest))
        return
    also = [side for side in rest[:-1] if is_place(side) and name_of(side) not in {*known, *FUNCTIONS}]
    known_left = value_of(left, known) if is_value(left, known) else None
    computed = [(sign, given(left, side, tree, known)) for sign, side in zip(tree.signs, rest) if side not in also]
    for sign, found in computed:
        yield Step(text, name_of(left), found, sign != "~", known_left)
    yield from (Step(text, name_of(side), computed[-1][1]) for side in also)
    if known_left is None and computed[0][0] != "~":
        known.update({name_of(side): computed[0][1] for side in (left, *also) if name_of(side) not in held})


def is_place(tree: Any) -> bool:
    """Whether it can stand on the left: a name, its elements, a derivative or a function of names."""
    match tree:
        case trees.Name() | trees.Derivative() | trees.Index(trees.Name()):
            return True
        case trees.Call():
            return all(isinstance(argument, trees.Name) for argument in tree.arguments)
    return False


def name_of(tree: Any) -> str:
    match tree:
        case trees.Derivative(top, bottom):
            return f"{name_of(top)}/{name_of(bottom)}"
        case trees.Index(base):
            return name_of(base)
        case trees.Call(function):
            return function
    return tree.text


def indices_of(tree: Any) -> list[str]:
    """The names in the brackets of what stands on the left, each once."""
    if isinstance(tree, trees.Derivative):
        return list(dict.fromkeys(indices_of(tree.top) + indices_of(tree.bottom)))
    return [item.text for item in tree.items] if isinstance(tree, trees.Index) else []


def given(left: Any, right: Any, tree: trees.Relation, known: Values) -> Any:
    """What an equation gives: an array, for all values of the indices on its left; or a function, where that is one."""
    if isinstance(left, trees.Call) and not is_value(left, known):
        return lambda *arguments: value_of(right, known | dict(zip(names_in(left), arguments)))
    indices, before = indices_of(left), known.get(name_of(left))
    if not indices:
        found = value_of(right, known)
        return before + found if tree.signs[0] == "+=" else found
    elements, scope = {}, dict(known)
    for place in places(indices, tree, scope):
        if all(value_of(condition, scope) for condition in tree.where):
            elements[place] = value_of(right, scope)
    shape = [size_of(index, tree, known) for index in indices]
    some = np.asarray(next(iter(elements.values())))
    result = np.array(before) if tree.signs[0] == "<-" else np.zeros((*shape, *some.shape), some.dtype)
    for place, element in elements.items():
        result[place] = element
    return result


def is_value(left: Any, known: Values) -> bool:
    """Whether the left is a known function of known arguments, which the right should equal, and defines nothing."""
    return isinstance(left, trees.Call) and function_of(left.function, known) is not None and all(
        part.text in known for part in trees.walk(left) if isinstance(part, trees.Name))


def names_in(call: trees.Call) -> list[str]:
    return [argument.text for argument in call.arguments]


def places(indices: list, tree: Any, scope: Values) -> Iterator[tuple]:
    """All values of the indices, which are set in the scope meanwhile."""
    outside = {index: scope[index] for index in indices if index in scope}
    sizes = [size_of(index, tree, scope) for index in indices]
    for place in np.ndindex(*sizes):
        scope.update(zip(indices, place))
        yield place
    for index in indices:
        scope.pop(index, None)
    scope.update(outside)


def size_of(index: str, tree: Any, known: Values) -> int:
    """How many values an index takes: the size of the axes that it stands at. A gradient has the shape of its array."""
    sizes = set()
    for part in trees.walk(tree):
        if isinstance(part, trees.Index) and isinstance(part.base, trees.Name):
            name = part.base.text
            array: Any = known.get(name, known.get(name[1:], 0) if is_gradient(name) else 0)
            sizes |= {size for size, item in zip(np.shape(array), part.items) if item == trees.Name(index)}
    bound = next((part for part in trees.walk(tree) if isinstance(part, trees.Relation)
                  and part.sides[0] == trees.Name(index) and part.signs[0] in ("<", "<=")), None)
    if not sizes and bound:                                             # i <= k, of no array
        return int(value_of(bound.sides[1], known)) + (bound.signs[0] == "<=")
    if len(sizes) != 1:
        raise ValueError(f"index {index} must stand at axes of one size: got {sorted(sizes) or 'none'}")
    return sizes.pop()


# ---- trees without an equation

def value_of(tree: Any, known: Values) -> Any:
    return RULES[type(tree)](tree, known)


def name(tree: trees.Name, known: Values) -> Any:
    if tree.text in known:
        return known[tree.text]
    if tree.text in CONSTANTS:
        return CONSTANTS[tree.text]
    raise ValueError(f"{tree.text} has no value")


def binary(tree: trees.Binary, known: Values) -> Any:
    return OPERATORS[tree.operator](value_of(tree.left, known), value_of(tree.right, known))


def call(tree: trees.Call, known: Values) -> Any:
    function = function_of(tree.function, known)
    if function is None:
        raise ValueError(f"{tree.function} is no function that has a value")
    return function(*(value_of(argument, known) for argument in tree.arguments))


def function_of(name: str, known: Values) -> Any:
    """The function of this name, or None. `mean` is one even where it is a value, too."""
    return known[name] if callable(known.get(name)) else FUNCTIONS.get(name)


def index(tree: trees.Index, known: Values) -> Any:
    return np.asarray(value_of(tree.base, known))[
        tuple(slice(None) if item is None else value_of(item, known) for item in tree.items)]


def derivative(tree: trees.Derivative, known: Values) -> Any:
    found = name(trees.Name(name_of(tree)), known)
    indices = indices_of(tree)
    return found[tuple(known[index] for index in indices)] if indices else found


def over(tree: trees.Over, known: Values) -> Any:
    """`sum over rows` is one along the first axis; others run through the values of their indices, where the
    conditions hold."""
    if tree.indices == (trees.Name("rows"),):
        return REDUCE[tree.kind](value_of(tree.body, known), axis=0)
    scope = dict(known)
    names = [item.sides[0].text if isinstance(item, trees.Relation) else item.text for item in tree.indices]
    conditions = [item for item in tree.indices if isinstance(item, trees.Relation)]
    terms = [value_of(tree.body, scope) for _ in places(names, tree, scope)
             if all(value_of(condition, scope) for condition in conditions)]
    return REDUCE[tree.kind](terms, axis=0)


def relation(tree: trees.Relation, known: Values) -> Any:
    values = [value_of(side, known) for side in tree.sides]
    holds = [COMPARE[sign](before, after) for sign, before, after in zip(tree.signs, values, values[1:])]
    return holds[0] if len(holds) == 1 else np.logical_and.reduce(holds)


def group(tree: trees.Group, known: Values) -> Any:
    inside = value_of(tree.value, known)
    return np.abs(inside) if tree.bracket == "|" else inside


def by_row(function: Any) -> Any:
    """Of each row, as a column beside the rows, so that it fits them; of a vector a number."""
    return lambda x: function(x, axis=-1, keepdims=np.ndim(x) > 1)


def softmax(x: Any) -> Any:
    exp = np.exp(x - by_row(np.max)(np.real(x)))
    return exp / by_row(np.sum)(exp)


def least(*values: Any) -> Any:
    """The minimum of several; of one, the least of each row."""
    return by_row(np.min)(values[0]) if len(values) == 1 else choose(np.real(values[0]) <= np.real(values[1]), *values)


def greatest(*values: Any) -> Any:
    return by_row(np.max)(values[0]) if len(values) == 1 else choose(np.real(values[0]) >= np.real(values[1]), *values)


def choose(condition: Any, yes: Any, no: Any) -> Any:
    return np.where(condition, yes, no)[()]


CONSTANTS = {"pi": math.pi}
REDUCE: dict[str, Callable] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "product": np.prod}
FUNCTIONS: dict[str, Callable] = {
    "exp": np.exp, "log": np.log, "ln": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "cos": np.cos, "round": np.round,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "mod": np.mod, "Im": np.imag, "binomial": math.comb,
    "sum": by_row(np.sum), "mean": by_row(np.mean), "max": greatest, "min": least, "softmax": softmax,
    "std": lambda x: np.std(x, axis=-1, ddof=1, keepdims=np.ndim(x) > 1),
    "logsumexp": lambda x: np.log(by_row(np.sum)(np.exp(x))), "norm": lambda x: np.sqrt(np.sum(np.square(x))),
    "clip": lambda x, low, high: choose(np.real(x) < low, low, choose(np.real(x) > high, high, x)),
    "Phi": np.vectorize(lambda x: (1 + math.erf(x.real / math.sqrt(2))) / 2)}
OPERATORS: dict[str, Callable] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "": np.multiply, "/": np.divide, "@": np.matmul,
    ".": lambda left, right: np.sum(np.multiply(left, right), axis=-1)}
COMPARE: dict[str, Callable] = {"=": np.equal, "!=": np.not_equal, "<": lambda a, b: np.real(a) < np.real(b),
           "<=": lambda a, b: np.real(a) <= np.real(b), ">": lambda a, b: np.real(a) > np.real(b),
           ">=": lambda a, b: np.real(a) >= np.real(b)}
RULES: dict[type, Callable] = {
    trees.Name: name, trees.Binary: binary, trees.Call: call, trees.Index: index, trees.Derivative: derivative,
    trees.Over: over, trees.Relation: relation, trees.Group: group,
    trees.Number: lambda tree, known: int(tree.text) if tree.text.isdecimal() else float(tree.text),
    trees.Power: lambda tree, known: np.power(value_of(tree.base, known) * 1.0, value_of(tree.exponent, known)),
    trees.Minus: lambda tree, known: -value_of(tree.value, known),
    trees.Transposed: lambda tree, known: np.swapaxes(value_of(tree.value, known), -1, -2),
    trees.Indicator: lambda tree, known: np.where(value_of(tree.condition, known), 1.0, 0.0)[()],
    trees.Choice: lambda tree, known: choose(value_of(tree.condition, known), value_of(tree.value, known),
                                       value_of(tree.other, known))}
