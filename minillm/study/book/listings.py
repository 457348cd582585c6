"""Code for the book: a file, a range of its lines or a function, with the numbers that its lines have in the file."""
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .blocks import Block, Box, Code, Span, Spans

ROOT = Path(__file__).parents[3]                # of the checkout, or where the package is installed
LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".cu": "cpp", ".cuh": "cpp", ".toml": "toml"}
NO_SOURCES = ("This book was built from an installed package, which does not carry the C++ and CUDA sources: "
              "{} is left out. Built in a checkout of the repository it is printed here.")


class Lines(NamedTuple):
    """Consecutive lines of a file and the number of the first."""
    first: int
    text: str


def is_checkout() -> bool:
    """Whether the C++ sources are here."""
    return (ROOT / "csrc" / "cpu").is_dir()


def listing(argument: str) -> list[Block]:
    """The blocks of {code:path:what}. what: a function, Class.method, a range 10-20, or nothing for the whole file."""
    path, _, what = argument.partition(":")
    file = ROOT / path
    if not file.is_file():
        if path.startswith("csrc/") and not is_checkout():
            return [Box("Not here", [Span("text", NO_SOURCES.format(path))])]
        raise ValueError(f"{{code:{argument}}}: there is no file {path}")
    first, text = lines_of(file, what)
    return [code_of(path, first, text)]


def code_of(path: str, first: int, text: str) -> Code:
    """A listing under the name of its file."""
    last = first + text.count("\n")
    where = f", lines {first}–{last}" if last > first else f", line {first}"
    caption: Spans = [Span("code", path), Span("text", where)]
    return Code(text, LANGUAGES.get(Path(path).suffix, "text"), first, caption)


def lines_of(file: Path, what: str) -> Lines:
    """Part of a file. Raises ValueError where it has no such part."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first, last = 1, len(lines)
    if found := re.fullmatch(r"(\d+)-(\d+)", what):
        first, last = int(found[1]), int(found[2])
        if not 1 <= first <= last <= len(lines):
            raise ValueError(f"{file.name} has no lines {what}: it has {len(lines)}")
    elif what:
        first, last = span_of(ast.parse("\n".join(lines)), what, file.name)
    return Lines(first, "\n".join(lines[first - 1:last]).rstrip())


def span_of(tree: ast.AST, name: str, file: str) -> tuple[int, int]:
    """First and last line of a function, a class, a method or an assigned name."""
    node: ast.AST | None = tree
    for part in name.split("."):
        node = next((child for child in getattr(node, "body", []) if part in names(child)), None)
        if node is None:
            raise ValueError(f"{file} has no {name}")
    return extent(node)                                                                 # type: ignore[arg-type]


def names(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def extent(node: ast.stmt) -> tuple[int, int]:
    """Lines of a statement with its decorators."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return first, node.end_lineno or first


def pieces(file: Path, alone: list[str]) -> Iterator[tuple[str, Lines]]:
    """A Python file below its docstring in pieces, in order: each function of `alone` by its name, and what lies
    between under ""."""
    lines = file.read_text(encoding="utf-8").splitlines()
    body = ast.parse("\n".join(lines)).body
    start = extent(body[0])[1] if ast.get_docstring(ast.parse("\n".join(lines))) else 0
    cuts = [(extent(node), node.name) for node in body if isinstance(node, ast.FunctionDef) and node.name in alone]
    for (first, last), name in [*cuts, ((len(lines) + 1, len(lines)), "")]:
        yield from between(lines, start, first - 1)
        if name:
            yield name, Lines(first, "\n".join(lines[first - 1:last]))
        start = last


def between(lines: list[str], start: int, end: int) -> Iterator[tuple[str, Lines]]:
    """Lines start + 1 to end without empty ones around them, if any are left."""
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    if start < end:
        yield "", Lines(start + 1, "\n".join(lines[start:end]))
