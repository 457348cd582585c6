"""Hold formulas against numbers, and plant mistakes in them."""
import numpy as np

from minillm.study.formulas import parse, steps
from minillm.study.formulas.trees import (
    Binary,
    Call,
    Choice,
    Index,
    Indicator,
    Minus,
    Name,
    Number,
    Over,
    Power,
    Relation,
    Transposed,
)

UNNAMED = "sum of what has no name"
H = 1e-30
EVEN = ("top = max(x)", "m = max(z)",                   # any number may be taken from the exponents
        "x = (step - warmup) / (steps - warmup)")       # cos(-x) is cos(x)
EXACT, ROUGH = 1e-12, 2e-3              # where a formula says ~


def close(value, wanted, exact=True):
    value, wanted = np.asarray(value), np.asarray(wanted)
    if not exact:
        return bool(np.all(np.abs(value - wanted) <= ROUGH))
    return np.broadcast_shapes(value.shape, wanted.shape) == wanted.shape and bool(
        np.all(np.abs(value - wanted) <= EXACT * max(1, np.abs(wanted).max(initial=0))))


def mistakes(texts, values, expected):
    """[what differs] between formulas (texts or trees) and the expected values, the derivatives' by complex step."""
    found, sides, last = [], {}, {}
    for step in steps(texts, values):
        for label, wanted in (("expected", expected.get(step.name)), ("function", step.left),
                              ("other side", sides.get((step.text, step.name)))):
            value = step.value
            if callable(value) and isinstance(wanted, tuple):                       # a function: (arguments, its value)
                value, wanted = value(*wanted[0]), wanted[1]
            if wanted is not None and not callable(value) and not close(value, wanted, step.exact):
                found.append((step.text, step.name, label))
        if step.exact:
            sides[step.text, step.name] = last[step.name] = step.value
        is_checked = step.name in expected or "/" not in (step.name or "")
        if not is_checked and not close_derivative(step, texts, values, last):
            found.append((step.text, step.name, "complex step"))
        if step.name is None and step.left is None:
            last[UNNAMED] = last.get(UNNAMED, 0) + step.value
    found += [("", name, "last value") for name, wanted in expected.items()
              if (name == UNNAMED or name.endswith(" last")) and not close(last[name.removesuffix(" last")], wanted)]
    return found


def close_derivative(step, texts, values, last):
    """Whether a derivative is that of the formula above which gives its numerator."""
    top, bottom = (name[1:] for name in step.name.split("/"))
    at = np.asarray(last.get(bottom, values.get(bottom)))

    def slope(direction):
        moved = steps(texts, values | {bottom: at + 1j * H * direction}, held=[bottom])
        return np.imag(next(s.value for s in moved if s.name == top)) / H
    y = np.asarray(last.get(top, values.get(top)))
    value = np.asarray(step.value)
    if value.ndim <= at.ndim and y.shape == at.shape:                   # each number depends on itself alone
        return close(value, slope(np.ones(at.shape)))
    columns = np.stack([slope(np.eye(at.shape[-1])[c] * np.ones(at.shape)) for c in range(at.shape[-1])], axis=-1)
    return close(value, columns if y.shape == at.shape else columns[..., 0, :])


def planted(text):
    """Its mutants, but for those that change nothing."""
    tree = parse(text)
    return [mutant for mutant in mutants(tree) if text not in EVEN or mutant.sides[1] != Minus(tree.sides[1])]


def mutants(tree):
    """A formula with one mistake each: signs, dropped factors, indices, conditions, numbers, functions, transposes."""
    if isinstance(tree, Relation) and tree.signs and tree.signs[0] in ("=", "<-", "+=", "~"):
        for place in range(1, len(tree.sides)):
            for changed in (Minus(tree.sides[place]), *mutants(tree.sides[place])):
                yield tree._replace(sides=(*tree.sides[:place], changed, *tree.sides[place + 1:]))
        for place, condition in enumerate(tree.where):
            for changed in mutants(condition):
                yield tree._replace(where=(*tree.where[:place], changed, *tree.where[place + 1:]))
        return
    yield from here(tree)
    for name in getattr(tree, "_fields", ()):
        field = getattr(tree, name)
        if hasattr(field, "_fields"):
            yield from (tree._replace(**{name: changed}) for changed in mutants(field))
        elif isinstance(field, tuple):
            for place, part in enumerate(field):
                for changed in mutants(part) if hasattr(part, "_fields") else ():
                    yield tree._replace(**{name: (*field[:place], changed, *field[place + 1:])})


def here(tree):
    """What can go wrong at the top of a tree."""
    match tree:
        case Binary("+" | "-" as sign, left, right):
            yield Binary("-" if sign == "+" else "+", left, right)
            yield left
        case Binary(_, left, right):
            yield left
            yield right
        case Power(base, _):
            yield base
        case Minus(value) | Transposed(value):
            yield value
        case Indicator(condition):
            yield Number("1")
        case Choice(value, condition, other):
            yield Choice(other, condition, value)
        case Index(base, (first, second)):
            yield Index(base, (second, first))
        case Over(kind, indices, body):
            yield Over("max" if kind == "sum" else "sum", indices, body)
        case Relation(sides, ("<=",)):
            yield Relation(sides, ("<",))
        case Relation(sides, ("<",)):
            yield Relation(sides, ("<=",))
        case Number(text):
            yield Number(str(float(text) + 1) if "." in text else str(int(text) + 1))
        case Call("exp" | "log" | "tanh" | "softmax" | "mean" | "sqrt", (argument,)):
            yield argument
        case Name("s"):
            yield Name("t")


