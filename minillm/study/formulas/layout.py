"""How a formula is set: a syntax tree becomes boxes, which Typst and MathML write each in their own way.

Fractions for /, indices for brackets, hats and Greek letters by name, cases for `if ... else`. Single letters are
italic, words too, functions upright. A gradient keeps the name that it has in the code: an upright d and the array.
Where two whole arrays are multiplied number by number a ring with a dot says so; a product without a sign is one of
numbers, or a matmul.
"""
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from . import trees
from .parse import parse
from .symbols import ARRAYS, BEFORE, EITHER, FUNCTIONS, LETTERS, REDUCTIONS, SCALARS, is_gradient

SIGNS = {"<-": "←", "<=": "≤", ">=": "≥", "!=": "≠", "~": "≈", "-": "−", ".": "⋅", "||": "∥"}
BIG_SIGNS = {"sum": "∑", "product": "∏"}
POINT = "⊙"


class Mark(NamedTuple):
    """kind: letter (italic), word (italic), upright, bold, number, text, sign (spaced by what it is), space (thin or
    quad)."""
    kind: str
    text: str


class Row(NamedTuple):
    items: tuple


class Fraction(NamedTuple):
    """rule: the line between; a binomial coefficient has none."""
    top: Any
    bottom: Any
    rule: bool = True


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

    def grows(self) -> bool:
        """Whether the brackets are taller than a line: around fractions and sums, not for a mere index."""
        return any(isinstance(box, (Fraction, Big, Cases)) for box in trees.walk(self.body))


class Cases(NamedTuple):
    """(value, condition) each."""
    rows: tuple


GRADIENT = Mark("upright", "d")
THIN, WIDE = Mark("space", "thin"), Mark("space", "quad")


def layout(text: str, display: bool = True) -> Any:
    """The boxes of a formula that stands on a line of its own, or within one. Raises ValueError where it does not
    parse."""
    return boxes(parse(text), not display)


def boxes(tree: Any, small: bool = False) -> Any:
    """small: within a line of text, a fraction, an index or an exponent. There a fraction has a slash, and a sum its
    index beside it."""
    return RULES[type(tree)](tree, small)


def row(*items: Any) -> Any:
    flat: list = []
    for item in items:
        flat += item.items if isinstance(item, Row) else [item]
    return flat[0] if len(flat) == 1 else Row(tuple(flat))


def bare(tree: Any) -> Any:
    """Without the round brackets around it, which a fraction or an index makes needless."""
    return tree.value if isinstance(tree, trees.Group) and tree.bracket == "(" else tree


def sign(text: str) -> Mark:
    return Mark("sign", SIGNS.get(text, text))


def name_box(name: str) -> Any:
    first, _, rest = name.partition("_")
    digits = re.fullmatch(r"([A-Za-z]+)(\d+)", name)
    if name in LETTERS:
        return Mark("letter", LETTERS[name])
    if is_gradient(name):
        return row(GRADIENT, name_box(name[1:]))
    if name.endswith("hat") and len(name) == 4:
        return Hat(name_box(name[0]))
    if digits:
        return Script(name_box(digits[1]), Mark("number", digits[2]))
    if rest and first in BEFORE:
        return Script(name_box(rest), Mark("text", first))
    if rest and (len(first) == 1 or first in LETTERS or "_" not in rest):
        return Script(name_box(first), name_box(rest) if len(rest) == 1 else Mark("text", rest.replace("_", " ")))
    return Mark("letter" if len(name) == 1 else "word", name.replace("_", " "))


def function_box(name: str) -> Any:
    first, _, rest = name.partition("_")
    if name in LETTERS or len(name) == 1:
        return name_box(name)
    if name in FUNCTIONS:
        return Mark("upright", name)
    if first in FUNCTIONS and rest:                                 # ln_1 is a LayerNorm, and no logarithm
        return Script(Mark("upright", "LN") if first == "ln" else function_box(first), name_box(rest))
    return name_box(name)


def name(tree: trees.Name, small: bool) -> Any:
    return name_box(tree.text)


def number(tree: trees.Number, small: bool) -> Any:
    mantissa, power, exponent = tree.text.partition("e")
    if not power:
        return Mark("number", tree.text)
    ten = Script(Mark("number", "10"), None, row(*([sign("-")] if exponent[0] == "-" else []),
                                                 Mark("number", exponent.strip("+-").lstrip("0"))))
    return ten if mantissa == "1" else row(Mark("number", mantissa), sign("×"), ten)


def index(tree: trees.Index, small: bool) -> Any:
    items: list = []
    for item in tree.items:
        items += [sign(",")] if items else []
        items.append(sign(":") if item is None else boxes(bare(item), True))
    return Script(boxes(tree.base, small), row(*items))


def call(tree: trees.Call, small: bool) -> Any:
    inside = tree.arguments[0]
    if tree.function == "sqrt":
        return Root(boxes(bare(inside), small))
    if tree.function == "norm":
        return Fence("‖", boxes(inside, small), "‖")
    if tree.function == "binomial":
        above, below = (boxes(argument, True) for argument in tree.arguments)
        return Fence("(", Fraction(above, below, rule=False), ")")
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
    return isinstance(tree, trees.Minus) or isinstance(tree, trees.Binary) and tree.operator in ("+", "-")


def derivative(tree: trees.Derivative, small: bool) -> Any:
    top, bottom = (row(Mark("upright", "∂"), without_d(part)) for part in tree)
    return row(top, sign("/"), bottom) if small else Fraction(top, bottom)


def without_d(tree: Any) -> Any:
    if isinstance(tree, trees.Index):
        return index(tree._replace(base=trees.Name(tree.base.text[1:])), True)
    return name_box(tree.text[1:])


def binary(tree: trees.Binary, small: bool) -> Any:
    operator, left, right = tree
    if operator == "/" and not small:
        return Fraction(boxes(bare(left), True), boxes(bare(right), True))
    before, after = boxes(left, small), boxes(right, small)
    if isinstance(right, trees.Minus) or operator == "/" and isinstance(right, trees.Binary):
        after = Fence("(", after, ")")                                  # a * -b; x / 2h on one line
    if operator == "*" and not is_scalar(left) and not is_scalar(right) and (is_whole(left) or is_whole(right)):
        return row(before, sign(POINT), after)
    if operator in ("+", "-", "/", "."):
        return row(before, sign(operator), after)
    if edge(after, 0).kind == "number" or is_open(left, small):
        return row(before, sign("."), after)
    apart = operator == "@" or is_wide(edge(before, -1)) or is_wide(edge(after, 0))
    return row(before, *([THIN] if apart else []), after)


def is_open(tree: Any, small: bool) -> bool:
    """Whether what comes behind it would seem to belong to it: to the x of log x, or below the slash of a/b."""
    while isinstance(tree, trees.Binary) and tree.operator in ("*", "", "@"):
        tree = tree.right
    return isinstance(tree, trees.Call) and not tree.brackets or (
        small and isinstance(tree, trees.Binary) and tree.operator == "/")


def is_whole(tree: Any) -> bool:
    """Whether an array stands in it as a whole, and not one of its elements."""
    if isinstance(tree, (trees.Index, trees.Call, trees.Over, trees.Indicator)):
        return False
    return isinstance(tree, trees.Derivative) or isinstance(tree, trees.Name) and (
        tree.text in ARRAYS or is_gradient(tree.text)) or any(map(is_whole, trees.parts(tree)))


def is_scalar(tree: Any) -> bool:
    """Whether it is certainly one number: an element, what a row comes down to, or made of such."""
    if isinstance(tree, trees.Name):
        return tree.text in SCALARS or len(tree.text) == 1 and tree.text not in ARRAYS | EITHER
    if isinstance(tree, trees.Call):
        return tree.function in REDUCTIONS or all(map(is_scalar, tree.arguments))
    inside = trees.parts(tree)
    return isinstance(tree, (trees.Index, trees.Over, trees.Indicator, trees.Number)) or (
        bool(inside) and all(map(is_scalar, inside)))


def edge(box: Any, place: int) -> Mark:
    """The first (0) or last (-1) mark of a box, as far as it stands on the line."""
    while not isinstance(box, Mark):
        if isinstance(box, Row):
            if place == -1 and box.items[-2] == GRADIENT:
                return Mark("word", "")
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


def power(tree: trees.Power, small: bool) -> Any:
    return raised(boxes(tree.base, small), boxes(bare(tree.exponent), True))


def raised(base: Any, above: Any) -> Any:
    """An exponent stands over an index, not behind it."""
    return base._replace(above=above) if isinstance(base, Script) and base.above is None else Script(base, None, above)


def minus(tree: trees.Minus, small: bool) -> Any:
    return row(sign("-"), boxes(tree.value, small))


def transposed(tree: trees.Transposed, small: bool) -> Any:
    return raised(boxes(tree.value, small), Mark("upright", "⊤"))


def group(tree: trees.Group, small: bool) -> Any:
    return Fence(tree.bracket, boxes(tree.value, small), {"(": ")", "|": "|"}[tree.bracket])


def over(tree: trees.Over, small: bool) -> Any:
    under: list = []
    for item in tree.indices:
        under += [sign(",")] if under else []
        under.append(boxes(item, True))
    big = Mark("sign", BIG_SIGNS[tree.kind]) if tree.kind in BIG_SIGNS else Mark("upright", tree.kind)
    sign_box = Script(big, row(*under)) if small else Big(big, row(*under))
    return row(sign_box, THIN, boxes(tree.body, small))


def indicator(tree: trees.Indicator, small: bool) -> Any:
    return row(Mark("bold", "1"), Fence("[", boxes(tree.condition, True), "]"))


def choice(tree: trees.Choice, small: bool) -> Any:
    rows, rest = [], tree
    while isinstance(rest, trees.Choice):
        rows.append((boxes(rest.value, True), row(Mark("text", "if"), THIN, boxes(rest.condition, True))))
        rest = rest.other
    return Cases((*rows, (boxes(rest, True), Mark("text", "otherwise"))))


def relation(tree: trees.Relation, small: bool) -> Any:
    first = boxes(tree.sides[0], small)
    items = [first]
    for mark, side in zip(tree.signs, tree.sides[1:]):
        items += [sign("<-"), first, sign("+")] if mark == "+=" else [sign(mark)]
        items.append(boxes(side, small))
    for place, condition in enumerate(tree.where):
        items += [sign(",")] if place else [WIDE, Mark("text", "for"), THIN]
        items.append(boxes(condition, small))
    return row(*items)


RULES: dict[type, Callable] = {
    trees.Name: name, trees.Number: number, trees.Index: index, trees.Call: call, trees.Derivative: derivative,
    trees.Binary: binary, trees.Power: power, trees.Minus: minus, trees.Transposed: transposed, trees.Group: group,
    trees.Over: over, trees.Indicator: indicator, trees.Choice: choice, trees.Relation: relation}
