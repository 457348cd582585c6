"""Formulas in plain notation for the book, from study/formulas: typeset, and found in docstrings."""
import re

from ..formulas import Formula, formulas_of, to_mathml, to_typst
from ..formulas.find import is_formula
from ..formulas.symbols import is_gradient

__all__ = ["Formula", "formulas_in_prose", "formulas_of", "mathml", "typst"]


NAME = re.compile(r"[A-Za-z]\w*")
LONGEST = 28            # words of a formula within a sentence


def typst(text: str) -> str:
    """The inside of Typst's dollar signs."""
    return to_typst(text)


def mathml(text: str, display: bool = False) -> str:
    """A <math> element; display: with the room that an equation on a line of its own has."""
    return to_mathml(text, display).replace('display="block"', 'displaystyle="true"')


def problems(text: str) -> list[str]:
    """Why it is no formula; nothing where it is one."""
    try:
        to_typst(text)
    except ValueError as error:
        return [str(error)]
    return []


def formulas_in_prose(docstring: str, line: str, number: int) -> list[Formula]:
    """The formulas and their names in a sentence of a docstring: the longest runs of words that are one."""
    defined = {name for f in formulas_of(docstring) for name in NAME.findall(f.text)}
    tokens = list(re.finditer(r"\S+", line))
    found, place = [], 0
    while place < len(tokens):
        for end in range(min(len(tokens), place + LONGEST), place, -1):
            first, last = opening(line, tokens[place].start(), tokens[end - 1].end())
            text = line[first:last]
            if (is_name(text, defined) if end == place + 1 else
                    is_formula(text, defined) and is_whole(line, first, last)):
                found.append(Formula(" ".join(text.split()), number, first, last))
                place = end - 1
                break
        place += 1
    return found


def is_whole(line: str, first: int, last: int) -> bool:
    """Whether a run of words is all of a formula and no word of the sentence: not `dx = p` before `* (...)`, not
    `out = sum` before `over the tokens`, not `s1 = x + that`."""
    return not (re.match(r" (?:[-+*/@=]|of |over )", line[last:]) or re.search(r"[-+*/@=] $", line[:first])
                or re.search(r"\b(?:that|layer)\b|\b(?:rows|sum)$", line[first:last]))


def opening(line: str, first: int, last: int) -> tuple[int, int]:
    """A run of words without the punctuation around it, and without a bracket that it does not close."""
    text = line[first:last]
    if text[0] == "(" and text.count("(") > text.count(")"):
        first += 1
    text = line[first:last].rstrip(".,;:")
    if text.endswith(")") and text.count(")") > text.count("("):
        text = text[:-1]
    return first, first + len(text)


def is_name(text: str, defined: set) -> bool:
    """Whether a word alone is a name of a formula: a letter that is no English word, a gradient, a hat; or a formula
    without blanks, such as dp[i]/dx[j]."""
    if NAME.fullmatch(text):
        return text in defined and (len(text) == 1 and text not in "aAI" or is_gradient(text) or text.endswith("hat"))
    return any(sign in text for sign in "[^=/") and text.isascii() and "." not in text and is_formula(text, defined)
