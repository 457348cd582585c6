"""The plain formulas of docstrings, typeset (Typst, MathML) and evaluated (NumPy): one source for reader, book and test.

    from minillm.study.formulas import formulas_of, to_mathml, to_typst

`NOTATION` says what the plain signs mean.
"""
from .evaluate import Step, evaluate, steps
from .find import Formula, formulas_of
from .mathml import to_mathml
from .parse import parse
from .typst import to_typst

__all__ = ["Formula", "Step", "evaluate", "formulas_of", "parse", "steps", "to_mathml", "to_typst"]
