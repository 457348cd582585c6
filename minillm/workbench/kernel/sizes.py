"""What a source says of the sizes and the precision of its kernels, each in a comment of its own.

    // sizes: C % 4 == 0, HS == 64, T <= 1024        the sizes that they are written for, if not for all
    // precision: half                               (or bf16, tf32) what they compute in between float arrays

The check's sizes are moved to the nearest that such a line allows. HS is C / NH and OC is 4C; N counts all elements, so
a rule for N is taken as one for C.
"""
import math
import re
from typing import NamedTuple

from ...ops.table import Dims

LINE = re.compile(r"(?m)^[/*#\s]*sizes:\s*(.*(?:%|<=|==).*)$")
PRECISION = re.compile(r"(?m)^[/*#\s]*precision:\s*(\w+)\s*$")


class Precision(NamedTuple):
    """A type that a kernel computes in: from 1 to the next number, and how far rounding moves its smallest ones."""

    eps: float = 0.0
    tiny: float = 0.0


ARRAYS = Precision()                    # no other than the arrays'
# half: half a step of its subnormal numbers. Those of bf16 are often taken for zero, so a whole one.
PRECISIONS = {"half": Precision(2.0 ** -10, 2.0 ** -25), "bf16": Precision(2.0 ** -7, 2.0 ** -133),
              "tf32": Precision(2.0 ** -10, 2.0 ** -136)}
RULE = re.compile(r"(\w+)\s*(%|<=|==)\s*(\d+)\s*(?:==\s*0)?$")
LETTERS = ("B", "T", "C", "NH", "V", "HS", "N", "OC")


class Rule(NamedTuple):
    """A size is a multiple of a number, at most that number, or that number."""

    size: str
    kind: str                   # "%", "<=" or "=="
    number: int


def read_sizes(text: str) -> tuple[Rule, ...]:
    """The rules of a source. Raises ValueError for what is none."""
    found = []
    for part in ",".join(LINE.findall(text)).split(","):
        match = RULE.match(part.strip())
        if part.strip() and (not match or match[1] not in LETTERS or int(match[3]) < 1):
            raise ValueError(f"`sizes:` takes rules such as C % 4 == 0, HS == 64, T <= 1024 for {', '.join(LETTERS)}: "
                             f"got {part.strip()!r}")
        if match:
            found.append(Rule(match[1], match[2], int(match[3])))
    return tuple(found)


def read_precision(text: str) -> Precision:
    """The precision that a source names; zeros for none."""
    names = PRECISION.findall(text)
    if names and names[0] not in PRECISIONS:
        raise ValueError(f"`precision:` takes {', '.join(PRECISIONS)}: got {names[0]}")
    return PRECISIONS[names[0]] if names else ARRAYS


def fitted(dims: Dims, rules: tuple[Rule, ...]) -> Dims:
    """The sizes next to these that the rules allow; C stays a multiple of NH."""
    for name, kind, number in rules:
        letter = "C" if name in ("HS", "N", "OC") else name
        if name == "OC" and kind != "%":
            number = max(number // 4, 1)
        unit = dims.NH if name == "HS" else 1
        now = -(-getattr(dims, letter) // unit)
        new = {"%": -(-now // number) * number, "<=": min(now, number), "==": number}[kind]
        dims = dims._replace(**{letter: new * unit})
    if dims.C % dims.NH:
        dims = dims._replace(NH=math.gcd(dims.C, dims.NH))
    return dims
