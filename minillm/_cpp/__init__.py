"""Where the build puts the compiled modules: kernels by instruction set, tokenizer, deduplication, CUDA.

Where nothing is built, as in a fresh checkout, they are those of an installed minillm of the same version, if there is
one: else `python -m minillm` beside it would silently be NumPy alone.
"""
import json
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

HERE = Path(__file__).resolve().parent


def borrow():
    """The folder of an installed minillm's modules, if nothing is built here and it is of the same version;
    else None."""
    if built(HERE):
        return None
    for root in [*sys.path, *editable_installs()]:
        there = Path(root, "minillm", "_cpp").resolve()
        if there != HERE and built(there) and version_of(there) == version_of(HERE):
            return there
    return None


def built(folder):
    """Are there modules in it that this Python can load?"""
    return any(folder.glob(f"*{EXTENSION_SUFFIXES[0]}"))


def version_of(folder):
    return (folder.parent / "version.py").read_text()


def editable_installs():
    """The checkouts that `pip install -e` has been told to use."""
    from importlib.metadata import distributions
    from urllib.parse import unquote
    records = [json.loads(found.read_text("direct_url.json") or "{}") for found in distributions(name="minillm")]
    return [unquote(record["url"].removeprefix("file://")) for record in records if "dir_info" in record]


BORROWED = borrow()
if BORROWED:
    __path__.append(str(BORROWED))
