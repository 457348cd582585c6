"""Find the formulas of a docstring: they stand in its indented blocks, several on a line with wide blanks between."""
import re
from inspect import cleandoc
from typing import NamedTuple

from . import trees
from .parse import RESERVED, parse
from .symbols import is_known

DEFINED = r"([A-Za-z]\w*)(?:\[[^]]*\]|\([^)]*\))? +(?:=|<-|~) "            # what stands on the left
HOLDS = {"=", "<-", "+=", "+", "-", "*", "/", "@", "<", "<=", ">", ">=", "~"}         # what binds a piece to the next


class Formula(NamedTuple):
    """text: with single blanks; line: its number in the docstring, from 1; first, last: its columns in that line of
    inspect.cleandoc(docstring), so that a page can put it back between the words."""
    text: str
    line: int
    first: int
    last: int


def formulas_of(docstring: str | None) -> list[Formula]:
    """The formulas of a docstring, in their order; words, names alone and shapes are none."""
    lines = cleandoc(docstring or "").split("\n")
    block = [(number, line) for number, line in enumerate(lines, 1) if line.startswith("    ")]
    block = block or list(enumerate(lines, 1))[2:]          # one that is all there is lost its indent with the others
    defined = {word for _, line in block for word in re.findall(DEFINED, line)}
    return [formula for number, line in block for formula in formulas_in(line, number, defined)]


def formulas_in(line: str, number: int, defined: set) -> list[Formula]:
    found = []
    for first, last in groups(line):
        text = line[first:last].rstrip(".,;:")
        if is_formula(text, defined):
            found.append(Formula(" ".join(text.split()), number, first, first + len(text)))
    return found


def groups(line: str) -> list[tuple[int, int]]:
    """(first, last) columns of what stands between wide blanks and arrows. Blanks also align: neighbours that an
    operator holds together, at the end of one or the beginning of the other, are one group."""
    found: list[tuple[int, int]] = []
    for piece in re.finditer(r"->|\S+(?: (?!->)\S+)*", line):
        before = line[slice(*found[-1])].split()[-1] if found else "->"
        holds = before in {*HOLDS, "of"} or piece[0].split()[0] in HOLDS or re.match(r"for \w+ [<=>]", piece[0])
        if holds and "->" not in (before, piece[0]):
            found[-1] = (found[-1][0], piece.end())
        else:
            found.append(piece.span())
    return found


def is_formula(text: str, defined: set) -> bool:
    """Whether it holds names of formulas only, has blanks around its signs (n=1 is an argument), parses, and says more
    than a product of words would."""
    names = set(re.findall(r"[A-Za-z]\w*", text)) - {*RESERVED, *defined}
    if not all(map(is_known, names)) or re.search(r"\w=\w", text):
        return False
    try:
        found = list(trees.walk(parse(text)))
    except ValueError:
        return False
    says = (trees.Relation, trees.Over, trees.Power)
    return any(isinstance(tree, says) or isinstance(tree, trees.Binary) and tree.operator for tree in found)
