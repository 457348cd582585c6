"""What a formula is made of: its syntax tree, of records."""
from collections.abc import Iterator
from typing import Any, NamedTuple


class Number(NamedTuple):
    text: str


class Name(NamedTuple):
    text: str


class Index(NamedTuple):
    """base[items]; an item is a tree, or None for all of the axis, written `:`."""
    base: Any
    items: tuple


class Call(NamedTuple):
    """function(arguments), or `function argument` without brackets."""
    function: str
    arguments: tuple
    brackets: bool = True
    separator: str = ","


class Derivative(NamedTuple):
    """dout/dx, of something by something."""
    top: Any
    bottom: Any


class Binary(NamedTuple):
    """operator: + - * / @ . or "" for a product without a sign."""
    operator: str
    left: Any
    right: Any


class Power(NamedTuple):
    base: Any
    exponent: Any


class Minus(NamedTuple):
    value: Any


class Transposed(NamedTuple):
    value: Any


class Group(NamedTuple):
    """Round brackets, or straight ones (the absolute value)."""
    value: Any
    bracket: str = "("


class Over(NamedTuple):
    """`sum over s <= t of body`: kind, one tree for each index, which is a name or a relation that begins with one."""
    kind: str
    indices: tuple
    body: Any


class Indicator(NamedTuple):
    """1[condition]: one where it is true, else zero."""
    condition: Any


class Choice(NamedTuple):
    """value if condition else other."""
    value: Any
    condition: Any
    other: Any


class Relation(NamedTuple):
    """sides with signs between them; where: conditions that stand after `for`."""
    sides: tuple
    signs: tuple
    where: tuple = ()


def parts(tree: Any) -> list[Any]:
    """The trees directly inside a tree, in the order of the text."""
    found: list = []
    for field in tree if isinstance(tree, tuple) else ():
        found += [field] if hasattr(field, "_fields") else parts(field) if isinstance(field, tuple) else []
    return found


def walk(tree: Any) -> Iterator[Any]:
    """The tree and all trees inside, from the left."""
    yield tree
    for part in parts(tree):
        yield from walk(part)
