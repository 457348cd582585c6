"""What shards were made from: the files that are read, by their contents, and the tokenizer.

A run that goes on compares contents: times, places and files that are not read may change, texts may not.
"""
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...storage.atomic import printable
from ...tokenizer import Tokenizer
from ...tokenizer.rules import Rules
from ..sources.files import find_files
from ..sources.report import Report
from .format import blake2b

SHOWN = 3                   # changed files named in one error


class File(NamedTuple):
    """A file that is read: its name below the folder that was given, and its content."""

    name: str
    bytes: int
    path: Path

    def size(self) -> list:
        """What is cheap to compare: the suffix, which says how it is read, and the size."""
        return [Path(self.name).suffix, self.bytes]

    def content(self) -> list:
        """What decides its documents: also a hash."""
        return [*self.size(), hash_of(self.path)]


def hash_of(path: Path) -> str | None:
    """Of a file's bytes; None for one that cannot be read, or only once (a pipe)."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, blake2b).hexdigest()
    except OSError:
        pass
    return None


def list_files(paths: list[Path]) -> list[File]:
    """The files that `read_documents` reads, in its order."""
    return [File(printable(name_below(path, paths)), path.stat().st_size, path) for path in find_files(paths, Report())]


def name_below(path: Path, roots: Sequence[Path]) -> Path:
    """The name of a file inside the folder it was found in."""
    return next((path.relative_to(root) for root in roots if root != path and root in path.parents), Path(path.name))


def describe_source(files: list[File], tokenizer: Tokenizer | None, vocab_size: int) -> str:
    """A text that says what the shards come from. tokenizer: one that is given, None to train one of vocab_size."""
    contents = [[file.name, *file.content()] for file in files]
    return json.dumps({"files": contents} | describe_tokenizer(tokenizer, vocab_size))


def describe_tokenizer(tokenizer: Tokenizer | None, vocab_size: int) -> dict:
    """By content, too: merges, special tokens, pattern and rules are all that makes its ids."""
    if tokenizer is None:
        return {"vocab_size": vocab_size}
    rules = getattr(tokenizer, "rules", ())
    more = (rules,) if isinstance(rules, Rules) and any(rules) else ()          # what a plain tokenizer has not
    parts = repr((tokenizer.merges, sorted(tokenizer.special_tokens.items()), tokenizer.pattern, *more))
    return {"tokenizer": blake2b(parts.encode()).hexdigest()}


def difference(source: str, files: list[File], tokenizer: Tokenizer | None, vocab_size: int) -> str:
    """In what files and tokenizer differ from an earlier description, to follow "was trained"; "" if in nothing."""
    try:
        then = json.loads(source)
        sizes, contents = ([entry[1:end] for entry in then["files"]] for end in (3, 4))
    except (ValueError, KeyError, TypeError):
        return "on files that are not recorded as they are today"
    now = describe_tokenizer(tokenizer, vocab_size)
    if now != {key: value for key, value in then.items() if key != "files"}:
        both = "vocab_size" in now and "vocab_size" in then
        return f"with --vocab-size {then['vocab_size']}, not {vocab_size}" if both else "with another --tokenizer"
    if sizes == [file.size() for file in files] and contents == [file.content() for file in files]:
        return ""
    changed = changed_files({name: content for name, *content in then["files"]}, files)
    return f"on other files: {'; '.join(changed[:SHOWN]) or 'their order'}{'; ...' if len(changed) > SHOWN else ''}"


def changed_files(known: dict[str, list], files: list[File]) -> list[str]:
    """What became of each file that is not as it was."""
    now = {file.name: file for file in files}
    return ([f"{name} is gone" for name in known if name not in now]
            + [f"{name} is new" for name in now if name not in known]
            + [f"{name} has changed" for name, file in now.items()
               if name in known and (file.size() != known[name][:2] or file.content() != known[name])])
