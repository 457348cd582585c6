"""Formulas in plain notation for the book, from study/formulas: typeset, and found in docstrings."""
import re

from ..formulas import Formula, formulas_of, to_mathml, to_typst
from ..formulas.find import formulas_in

__all__ = ["Formula", "formulas_in_prose", "formulas_of", "mathml", "typst"]


def typst(text: str) -> str:
    """The inside of Typst's dollar signs. Raises ValueError that holds the formula where it is none."""
    try:
        return to_typst(text)
    except ValueError as error:
        raise ValueError(f"formula {text!r}: {error}") from None


def mathml(text: str, display: bool = False) -> str:
    """A <math> element."""
    try:
        found = to_mathml(text)
    except ValueError as error:
        raise ValueError(f"formula {text!r}: {error}") from None
    return found.replace("<math", '<math display="block"', 1) if display and "display=" not in found else found


def formulas_in_prose(docstring: str, line: str, number: int) -> list[Formula]:
    """The formulas that a sentence of a docstring sets off with wide blanks."""
    defined = {name for f in formulas_of(docstring) for name in re.findall(r"[A-Za-z]\w*", f.text)}
    return [found for found in formulas_in(line, number, defined) if re.search(r"\s{2}$", line[:found.first])]
