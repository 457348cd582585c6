"""The record of an exercise, and the two texts made from its file: the template with blank bodies, and the solution.

A file of exercises/ is read from top to bottom:

    the docstring              the task: shapes, what is known, formulas where they are given
    functions                  the reference solution; those named in `solve` are blank in the template, others given
    names that begin with _    for the judge alone (inputs, checks); neither in the template nor in the solution
    EXERCISE = Exercise(...)   what is judged, and how

Relative imports are for the judge, too; a solution needs NumPy and the standard library alone.
"""
import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Wrong(Exception):
    """What a check finds: one sentence for the learner."""


@dataclass(frozen=True)
class Exercise:
    """One exercise, as `EXERCISE = Exercise(__file__, ...)` at the end of its file.

    solve: the functions that the learner writes. needs: names of earlier exercises. hints: the derivation, one step
    each, the last of which all but gives the answer.

    What is judged, any of:
    op: of the op table; functions called OP_forward and OP_backward are judged on the op's own samples.
    inputs: the same for a pair NAME_forward, NAME_backward that is no op: rng -> {argument: value}, in order; wrt names
    those that have a gradient (default: all arrays of floats).
    cases: rng -> {function: [arguments, each a tuple]}; the results must be those of the reference solution.
    checks: (stage, check) pairs; check(yours, rng), where yours has the learner's functions as attributes, returns the
    evidence in a sentence or raises Wrong.

    mistakes: (text of the reference solution, what it is replaced by, the sentence for it): known wrong variants. A
    wrong result that is one of theirs is told so.
    parts: what an input's last axis holds side by side, such as ("qkv", ("q", "k", "v")), to say which is wrong.
    c: the reference solution in C, where the exercise is to write C; its functions' bodies are blank in the template.
    language: of that, "c" or "cu" for CUDA, whose kernels run on the emulator.
    """

    file: str
    solve: tuple[str, ...]
    hints: tuple[str, ...]
    needs: tuple[str, ...] = ()
    op: str = ""
    inputs: Callable[[Any], dict[str, Any]] | None = None
    wrt: tuple[str, ...] = ()
    cases: Callable[[Any], dict[str, list[tuple]]] | None = None
    checks: tuple[tuple[str, Callable[[Any, Any], str]], ...] = ()
    mistakes: tuple[tuple[str, str, str], ...] = ()
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    c: str = ""
    language: str = "c"

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def suffix(self) -> str:
        """Of a learner's file."""
        return f".{self.language}" if self.c else ".py"

    @property
    def source(self) -> str:
        """The text of the exercise's own file."""
        return Path(self.file).read_text(encoding="utf-8")

    @property
    def task(self) -> str:
        """The docstring."""
        return ast.get_docstring(ast.parse(self.source)) or ""

    @property
    def title(self) -> str:
        """The first sentence of the task."""
        return self.task.splitlines()[0].rstrip(".")

    def template(self) -> str:
        """The text of the file that a learner fills in."""
        how = f"Write what stands in place of `...`, then:  minillm learn check {self.name}{self.suffix}"
        return c_text(self, how, blank=True) if self.c else python_text(self, how, blank=True)

    def solution(self) -> str:
        """The same file, filled in, with the steps of the derivation as comments; it passes the check."""
        how = "The solution, after the steps that lead to it."
        text = c_text(self, how, blank=False) if self.c else python_text(self, how, blank=False)
        mark, (head, end, rest) = ("// ", text.partition("*/\n")) if self.c else ("# ", cut(text))
        steps = "".join(textwrap.fill(hint, 117, initial_indent=f"{number}. ", subsequent_indent="   ") + "\n"
                        for number, hint in enumerate(self.hints, 1))
        return head + end + textwrap.indent(steps, mark) + rest

    def reference(self) -> str:
        """The solution's code alone, without hints: what the wrong variants are made from."""
        return self.c or python_text(self, "", blank=False)


def cut(text: str) -> tuple[str, str, str]:
    """A module's text before, at and after the end of its docstring."""
    end = ast.parse(text).body[0].end_lineno or 1
    lines = text.splitlines(keepends=True)
    return "".join(lines[:end - 1]), lines[end - 1], "".join(lines[end:])


def python_text(exercise: Exercise, how: str, blank: bool) -> str:
    """The exercise's file without what is the judge's, and with blank bodies where asked for."""
    lines, parts, last = exercise.source.splitlines(), [], 0
    for node in ast.parse(exercise.source).body:
        before, last = last, node.end_lineno or 0
        if not for_the_judge(node):
            parts += lines[before:last] if not (blank and getattr(node, "name", "") in exercise.solve) else [
                *lines[before:body_start(node)], "    ..."]
    text = "\n".join(parts) + "\n"
    head, _, _ = cut(text)
    docstring = text[:len(head)].rstrip("\n") + f"\n\n{how}\n\"\"\"\n" if head else (
        text.splitlines()[0].removesuffix('"""') + f"\n\n{how}\n\"\"\"\n")
    _, _, rest = cut(text)
    return docstring.replace('"""', f'"""Exercise {exercise.name}.\n\n', 1) + rest


def for_the_judge(node: ast.stmt) -> bool:
    """Whether a statement at the top of an exercise's file is none of the learner's."""
    if isinstance(node, ast.ImportFrom):
        return bool(node.level)
    names = [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(
        node, ast.Assign) else [getattr(node, "name", "")]
    return any(name.startswith("_") or name == "EXERCISE" for name in names)


def body_start(node: Any) -> int:
    """The line after a function's docstring, or after its signature."""
    first = node.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first.end_lineno if has_docstring else first.lineno - 1


def c_text(exercise: Exercise, how: str, blank: bool) -> str:
    """The task as a comment, then the C, whose functions begin and end at the left margin."""
    code = exercise.c
    for name in exercise.solve if blank else ():
        code = re.sub(rf"(?ms)^(\w[^\n;]*\b{name}\([^{{;]*\{{\n).*?^\}}", r"\1    ...\n}", code)
    return f"/* Exercise {exercise.name}.\n\n{exercise.task}\n\n{how} */\n{code.lstrip()}"
