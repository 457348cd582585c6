"""The bundled corpus: English text that is on every machine with Python, its language reference and docstrings.

The language reference ships inside the standard library as `pydoc_data.topics` (the text behind `help("while")`), and
the library's own source carries some megabytes of careful prose in docstrings and comments. Nothing is imported to get
at the prose: each .py file is parsed with `ast`, so no module's side effects run, and optional C parts may be missing.
One module gives one document, its docstrings and its blocks of comment in source order.

The result depends on the Python installation only (version and which modules the distribution packages), so two runs
on one machine train on identical bytes. A docstring or comment that occurs in several places is kept once.
"""
import ast
import inspect
import os
import platform
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

# Tests and third-party packages are not the library's prose; `encodings` is tables, lib2to3 a parser's fixtures.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "lib-dynload",
                   "encodings", "pydoc_data", "__pycache__"}
SMALLEST_PIECE = 30        # characters; shorter docstrings ("Abstract base.") teach nothing
DOCSTRING_LETTERS = 0.6    # share of letters and spaces below which a docstring is a table or a dump, not text
COMMENT_LETTERS = 0.75     # comments must be nearer to plain sentences: many are commented-out code
EXAMPLE_BYTES = 2_000_000  # of each kind, of the texts to compare tokenizers on


def pydoc_corpus(stdlib: str | os.PathLike | None = None) -> list[tuple[str, str]]:
    """All documents as (name, text), sorted by name: "module asyncio.tasks", "topic assert", ...

    `stdlib` is the folder of .py files, by default this Python's. Unreadable or unparsable files are passed over.
    Raises FileNotFoundError when this Python lacks `pydoc_data` (some minimal installations do).
    """
    root = Path(stdlib or sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    documents = [(f"topic {name}", tidy(text)) for name, text in sorted(language_reference().items())]
    for path in _source_files(root):
        pieces = [piece for piece in dict.fromkeys(module_pieces(path)) if piece not in seen]
        seen.update(pieces)
        if pieces:
            documents.append((f"module {_module_name(path.relative_to(root))}", "\n\n".join(pieces)))
    first_of_text = {text: name for name, text in reversed(documents)}
    return sorted((name, text) for text, name in first_of_text.items())


def describe_corpus(documents: list[tuple[str, str]]) -> str:
    """One line of text: how many documents, how many megabytes (10^6 bytes of UTF-8), from where."""
    size = sum(len(text.encode()) for _, text in documents)
    return (f"{len(documents)} documents, {size / 1e6:.1f} MB: Python {platform.python_version()}'s language reference "
            "and standard-library docstrings and comments")


def english_and_python() -> list[tuple[str, str]]:
    """(name, text) of English and of Python that every installation has: the language reference, our own sources."""
    sources = sorted(Path(__file__).resolve().parents[2].rglob("*.py"))
    code = [(str(path), path.read_text(encoding="utf-8")) for path in sources]
    return first_bytes(sorted(language_reference().items())) + first_bytes(code)


def first_bytes(texts: list[tuple[str, str]], most: int = EXAMPLE_BYTES) -> list[tuple[str, str]]:
    """The first of them, of fewer than `most` bytes of UTF-8 together, but at least one."""
    sizes = accumulate(len(text.encode()) for _, text in texts)
    return texts[:max(1, sum(size < most for size in sizes))]


def language_reference() -> dict[str, str]:
    """The topics of the language reference, name -> text."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise FileNotFoundError(
            "this Python has no pydoc_data.topics, the language reference that the bundled corpus is made of; "
            "install the complete standard library, or train on your own text with --data FOLDER") from error
    return topics


def help_pages() -> list[tuple[str, str]]:
    """(name, text) of what help() shows for each keyword, symbol and topic, such as "help while", sorted by name.

    Raw text as it is found elsewhere, too: many names lead to one page of the language reference, as many addresses do
    on the web, and some put a line of their own below it. So there are exact and near-duplicates.
    """
    import pydoc
    texts, helper, pages = language_reference(), pydoc.Helper, []
    for name, target in sorted({**helper.topics, **helper.keywords, **helper.symbols}.items()):
        entry: str | tuple[str, ...] | None = target
        related: list[str] = []
        while isinstance(entry, str):                   # another name, and what else is related
            other, _, more = entry.partition(" ")
            related += more.split()
            entry = helper.topics.get(other, helper.keywords.get(other))
        if entry and entry[0] in texts:
            related = entry[1].split() + related
            below = f"\n\nRelated help topics: {', '.join(related)}" if related else ""
            pages.append((f"help {name}", tidy(texts[entry[0]] + below)))
    return pages


def module_pieces(path: str | os.PathLike) -> list[str]:
    """Docstrings and prose comments of one source file, cleaned, in source order; [] if it cannot be parsed."""
    try:
        with tokenize.open(path) as file:      # honours the file's own coding line
            source = file.read()
    except (OSError, SyntaxError, ValueError):
        return []
    tree = _parsed(source)
    return [text for _, text in sorted([*_docstrings(tree), *_comments(tree, source)])] if tree else []


def _parsed(source: str) -> ast.Module | None:
    """The syntax tree; None of what is no Python, as English of more than a word or two."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")    # old escapes in string literals
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def tidy(text: str) -> str:
    """Unix newlines, no tabs, no spaces at line ends, at most one empty line in a row, no rim of white space."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs()
    text = re.sub(r"[ \f\v]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def reads_as_prose(text: str, letters: float) -> bool:
    """Long enough, and at least the share `letters` of its characters are letters or white space."""
    plain = sum(character.isalpha() or character.isspace() for character in text)
    return len(text) >= SMALLEST_PIECE and plain >= letters * len(text)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                text = tidy(inspect.cleandoc(docstring))
                if reads_as_prose(text, DOCSTRING_LETTERS):
                    yield node.body[0].lineno, text


def _comments(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    """Runs of two or more comment lines that read as sentences, with the line number of the first."""
    inside_strings = _lines_of_long_strings(tree)
    run: list[str] = []
    for number, line in enumerate([*source.split("\n"), ""], start=1):
        stripped = line.strip()
        if stripped.startswith("#") and number not in inside_strings:
            run.append(stripped.lstrip("#:!"))
            continue
        if len(run) >= 2:
            text = _comment_text(run)
            if reads_as_prose(text, COMMENT_LETTERS) and not _parsed(text):      # commented-out code
                yield number - len(run), text
        run = []


def _comment_text(lines: list[str]) -> str:
    """The lines without their common indent and without rules and boxes (lines that hold no letter)."""
    kept = [line if any(map(str.isalpha, line)) else "" for line in lines]
    return tidy(inspect.cleandoc("\n" + "\n".join(kept)))   # the "\n": cleandoc treats a first line apart


def _lines_of_long_strings(tree: ast.Module) -> set[int]:
    """Numbers of the lines in the middle of a multi-line string, where a leading '#' is no comment."""
    return {line for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr))
            for line in range(node.lineno + 1, (node.end_lineno or 0) + 1)}


def _source_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in sorted(subfolders)
                         if name not in SKIPPED_FOLDERS and not name.startswith((".", "config-"))]
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):   # the build machine's flags
                yield Path(folder, name)


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
