"""How a formula is set: a syntax tree becomes boxes, which Typst and MathML write each in their own way.

Fractions for /, indices for brackets, hats and Greek letters by name, cases for `if ... else`. Single letters are
italic, words too, functions upright. A gradient keeps the name that it has in the code: an upright d and the array.
Where two whole arrays are multiplied number by number a ring with a dot says so; a product without a sign is one of
numbers, or a matmul.
"""
import re
from typing import Any, NamedTuple

from .parse import (Binary, Call, Choice, Derivative, Group, Index, Indicator, Minus, Name, Number, Over, Power,
                    Relation, Transposed, parse, parts)
from .symbols import ARRAYS, BEFORE, FUNCTIONS, LETTERS, REDUCTIONS, SCALARS, is_gradient

SIGNS = {"<-": "←", "<=": "≤", ">=": "≥", "!=": "≠", "~": "≈", "-": "−", ".": "⋅", "||": "∥"}
BIG_SIGNS = {"sum": "∑", "product": "∏"}
POINT = "⊙"


class Mark(NamedTuple):
    """kind: letter (italic), word (italic), upright, bold, number, sign (spaced by what it is), text, space (thin or quad)."""
    kind: str
    text: str


class Row(NamedTuple):
    items: tuple


class Fraction(NamedTuple):
    top: Any
    bottom: Any


class Script(NamedTuple):
    """below, above: None where there is none."""
    base: Any
    below: Any = None
    above: Any = None


class Big(NamedTuple):
    """A sum's sign, or a word such as max, over what it runs along."""
    sign: Mark
    under: Any


class Hat(NamedTuple):
    base: Any


class Root(NamedTuple):
    body: Any


class Fence(NamedTuple):
    left: str
    body: Any
    right: str


class Cases(NamedTuple):
    """(value, condition) each."""
    rows: tuple


THIN, WIDE = Mark("space", "thin"), Mark("space", "quad")


def layout(text: str) -> Any:
    """The boxes of a formula. Raises ValueError where it does not parse."""
    return boxes(parse(text))


def boxes(tree: Any, small: bool = False) -> Any:
    """small: inside an index or exponent, where a fraction is set with a slash."""
    return RULES[type(tree)](tree, small)


def row(*items: Any) -> Any:
    flat: list = []
    for item in items:
        flat += item.items if isinstance(item, Row) else [item]
    return flat[0] if len(flat) == 1 else Row(tuple(flat))


def bare(tree: Any) -> Any:
    """Without the round brackets around it, which a fraction or an index makes needless."""
    return tree.value if isinstance(tree, Group) and tree.bracket == "(" else tree


def sign(text: str) -> Mark:
    return Mark("sign", SIGNS.get(text, text))


def name_box(name: str) -> Any:
    first, _, rest = name.partition("_")
    digits = re.fullmatch(r"([A-Za-z]+)(\d+)", name)
    if name in LETTERS:
        return Mark("letter", LETTERS[name])
    if is_gradient(name):
        return row(Mark("upright", "d"), name_box(name[1:]))
    if name.endswith("hat") and len(name) == 4:
        return Hat(name_box(name[0]))
    if digits:
        return Script(name_box(digits[1]), Mark("number", digits[2]))
    if rest and first in BEFORE:
        return Script(name_box(rest), Mark("text", first))
    if rest and (len(first) == 1 or first in LETTERS):
        return Script(name_box(first), name_box(rest) if len(rest) == 1 else Mark("text", rest.replace("_", " ")))
    return Mark("letter" if len(name) == 1 else "word", name.replace("_", " "))


def function_box(name: str) -> Any:
    if name in LETTERS or len(name) == 1 or name not in FUNCTIONS:
        return name_box(name)
    return Mark("upright", name.replace("_", " "))


def name(tree: Name, small: bool) -> Any:
    return name_box(tree.text)


def number(tree: Number, small: bool) -> Any:
    mantissa, power, exponent = tree.text.partition("e")
    if not power:
        return Mark("number", tree.text)
    ten = Script(Mark("number", "10"), None, row(*([sign("-")] if exponent[0] == "-" else []),
                                                 Mark("number", exponent.strip("+-").lstrip("0"))))
    return ten if mantissa == "1" else row(Mark("number", mantissa), sign("×"), ten)


def index(tree: Index, small: bool) -> Any:
    items: list = []
    for item in tree.items:
        items += [sign(",")] if items else []
        items.append(sign(":") if item is None else boxes(bare(item), True))
    return Script(boxes(tree.base, small), row(*items))


def call(tree: Call, small: bool) -> Any:
    inside = tree.arguments[0]
    if tree.function == "sqrt":
        return Root(boxes(bare(inside)))
    if tree.function == "norm":
        return Fence("‖", boxes(inside, small), "‖")
    if tree.function in BIG_SIGNS:
        body = boxes(inside, small)
        return row(Mark("sign", BIG_SIGNS[tree.function]), Fence("(", body, ")") if is_sum(inside) else body)
    if not tree.brackets:
        return row(function_box(tree.function), THIN, boxes(inside, small))
    items: list = []
    for argument in tree.arguments:
        items += [sign(tree.separator)] if items else []
        items.append(boxes(argument, small))
    return row(function_box(tree.function), Fence("(", row(*items), ")"))


def is_sum(tree: Any) -> bool:
    return isinstance(tree, Minus) or isinstance(tree, Binary) and tree.operator in "+-" and tree.operator != ""


def derivative(tree: Derivative, small: bool) -> Any:
    top, bottom = (row(Mark("upright", "∂"), without_d(part)) for part in tree)
    return row(top, sign("/"), bottom) if small else Fraction(top, bottom)


def without_d(tree: Any) -> Any:
    if isinstance(tree, Index):
        return index(tree._replace(base=Name(tree.base.text[1:])), True)
    return name_box(tree.text[1:])


def binary(tree: Binary, small: bool) -> Any:
    operator, left, right = tree
    if operator == "/" and not small:
        return Fraction(boxes(bare(left)), boxes(bare(right)))
    before, after = boxes(left, small), boxes(right, small)
    if operator == "*" and not is_scalar(left) and not is_scalar(right) and (is_whole(left) or is_whole(right)):
        return row(before, sign(POINT), after)
    if operator in ("+", "-", "/", "."):
        return row(before, sign(operator), after)
    if edge(after, 0).kind == "number":
        return row(before, sign("."), after)
    return row(before, *([THIN] if is_wide(edge(before, -1)) or is_wide(edge(after, 0)) else []), after)


def is_whole(tree: Any) -> bool:
    """Whether an array stands in it as a whole, and not one of its elements."""
    if isinstance(tree, (Index, Call, Over, Indicator)):
        return False
    return isinstance(tree, Derivative) or isinstance(tree, Name) and (
        tree.text in ARRAYS or is_gradient(tree.text)) or any(map(is_whole, parts(tree)))


def is_scalar(tree: Any) -> bool:
    """Whether it is certainly one number: an element, what a row comes down to, or made of such."""
    if isinstance(tree, Name):
        return tree.text in SCALARS or len(tree.text) == 1 and tree.text not in ARRAYS | {"x", "w", "m", "v"}
    if isinstance(tree, Call):
        return tree.function in REDUCTIONS or all(map(is_scalar, tree.arguments))
    return isinstance(tree, (Index, Over, Indicator, Number)) or bool(parts(tree)) and all(map(is_scalar, parts(tree)))


def edge(box: Any, place: int) -> Mark:
    """The first (0) or last (-1) mark of a box, as far as it stands on the line."""
    while not isinstance(box, Mark):
        if isinstance(box, Row):
            box = box.items[place]
        elif isinstance(box, Script):
            box = box.base if place == 0 else Mark("upright" if is_wide(edge(box.base, -1)) else "letter", "")
        elif isinstance(box, Big):
            return box.sign if place == 0 else Mark("sign", "")
        else:
            return Mark("fence", "")
    return box


def is_wide(mark: Mark) -> bool:
    return mark.kind in ("word", "upright", "text", "bold")


def power(tree: Power, small: bool) -> Any:
    base = boxes(tree.base, small)
    above = boxes(bare(tree.exponent), True)
    if isinstance(base, Script) and base.above is None:
        return base._replace(above=above)
    return Script(base, None, above)


def minus(tree: Minus, small: bool) -> Any:
    return row(sign("-"), boxes(tree.value, small))


def transposed(tree: Transposed, small: bool) -> Any:
    return Script(boxes(tree.value, small), None, Mark("upright", "⊤"))


def group(tree: Group, small: bool) -> Any:
    return Fence(tree.bracket, boxes(tree.value, small), {"(": ")", "|": "|"}[tree.bracket])


def over(tree: Over, small: bool) -> Any:
    under: list = []
    for item in tree.indices:
        under += [sign(",")] if under else []
        under.append(boxes(item, True))
    big = Mark("sign", BIG_SIGNS[tree.kind]) if tree.kind in BIG_SIGNS else Mark("upright", tree.kind)
    return row(Big(big, row(*under)), THIN, boxes(tree.body, small))


def indicator(tree: Indicator, small: bool) -> Any:
    return row(Mark("bold", "1"), Fence("[", boxes(tree.condition, True), "]"))


def choice(tree: Choice, small: bool) -> Any:
    rows, rest = [], tree
    while isinstance(rest, Choice):
        rows.append((boxes(rest.value, small), row(Mark("text", "if"), THIN, boxes(rest.condition, small))))
        rest = rest.other
    return Cases((*rows, (boxes(rest, small), Mark("text", "otherwise"))))


def relation(tree: Relation, small: bool) -> Any:
    items = [boxes(tree.sides[0], small)]
    for mark, side in zip(tree.signs, tree.sides[1:]):
        items += [sign(mark), boxes(side, small)]
    for place, condition in enumerate(tree.where):
        items += [sign(",")] if place else [WIDE, Mark("text", "for"), THIN]
        items.append(boxes(condition, small))
    return row(*items)


RULES = {Name: name, Number: number, Index: index, Call: call, Derivative: derivative, Binary: binary, Power: power,
         Minus: minus, Transposed: transposed, Group: group, Over: over, Indicator: indicator, Choice: choice,
         Relation: relation}
