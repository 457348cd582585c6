"""Normalizers: what a tokenizer.json does to a text before it is cut into words.

NFC, NFD, NFKC and NFKD are those of Unicode 9.0, which `tokenizers` has: characters that Unicode decomposed
or reordered later are left alone, whatever Python's `unicodedata` knows, so that the ids of a text stay.
"""
from collections.abc import Callable
from functools import lru_cache, partial, reduce
from typing import Any
from unicodedata import normalize

import regex

from .added import WHITE
from .extension import load_extension

Normalizer = Callable[[str], str]

LATER = regex.compile(
    "(["
    r"\u0558\u058b\u058c\u05c8\u05c9\u07fd\u0897-\u089f\u08ca-\u08d3\u09fe\u0c3c\u0d3b\u0d3c\u0eba\u1715"
    r"\u1abf-\u1af0\u1df6-\u1dfa\u209d-\u209f\u32ff\ua7f1-\ua7f4\ua82c\uab69\U000105c9\U000105e4"
    r"\U00010781-\U00010785\U00010787-\U000107b0\U000107b2-\U000107bf\U00010d24-\U00010d27\U00010d69-\U00010d6d"
    r"\U00010eab\U00010eac\U00010ecb-\U00010ecf\U00010ef0-\U00010efb\U00010efd-\U00010eff\U00010f46-\U00010f50"
    r"\U00010f82-\U00010f85\U00011070\U0001133b\U00011383\U00011385\U0001138e\U00011391\U000113b8\U000113bb"
    r"\U000113c2\U000113c5\U000113c7-\U000113c9\U000113ce-\U000113d0\U0001145e\U00011839\U0001183a\U00011930"
    r"\U00011938\U0001193d\U0001193e\U00011943\U000119e0\U00011a34\U00011a47\U00011a99\U00011d42\U00011d44"
    r"\U00011d45\U00011d97\U00011f41\U00011f42\U0001611e-\U00016129\U0001612f\U00016d67-\U00016d6a\U00016ff0"
    r"\U00016ff1\U0001b123-\U0001b126\U0001ccd6-\U0001ccf9\U0001d127\U0001d128\U0001d250-\U0001d252\U0001d25b"
    r"\U0001d25c\U0001d25f\U0001d280\U0001d281\U0001d6a6\U0001df95\U0001dfcd-\U0001dfff\U0001e030-\U0001e06d"
    r"\U0001e08f\U0001e130-\U0001e136\U0001e2ae\U0001e2ec-\U0001e2ef\U0001e4ec-\U0001e4ef\U0001e5ee\U0001e5ef"
    r"\U0001e6e3\U0001e6e6\U0001e6ee\U0001e6ef\U0001e6f5\U0001f16c\U0001fbf0-\U0001fbf9"
    "])")
LATER_CHARACTERS = frozenset(
    chr(code) for first, last in regex.findall(r"(\\[uU][0-9a-f]+)(?:-(\\[uU][0-9a-f]+))?", LATER.pattern)
    for code in range(int(first[2:], 16), int((last or first)[2:], 16) + 1))       # 5 times faster than LATER.search
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
MANY = 64                       # characters, among which C++ looks for those that NFC may change


def normalizer_of(description: Any) -> Normalizer | None:
    """The function that a `normalizer` of tokenizer.json describes; None if it changes nothing. Raises ValueError
    naming what is not known."""
    kind = description.get("type") if isinstance(description, dict) else None
    if description is None:
        return None
    if kind in FORMS:
        return partial(to_form, kind)
    if kind == "Sequence" and isinstance(description.get("normalizers"), list):
        steps = [step for step in map(normalizer_of, description["normalizers"]) if step]
        return partial(reduce, lambda text, step: step(text), steps) if len(steps) > 1 else steps[0] if steps else None
    if kind == "Prepend" and isinstance(description.get("prepend"), str):
        return lambda text: description["prepend"] + text if text else text
    if kind == "Replace" and isinstance(description.get("content"), str):
        return replacement(description.get("pattern"), description["content"])
    if kind == "Strip":
        left, right = (WHITE if description.get(f"strip_{side}") is True else "" for side in ("left", "right"))
        return lambda text: text.lstrip(left).rstrip(right)
    raise ValueError(f"normalizer {kind or description!r} is not known: expected {', '.join(FORMS)}, Prepend, Replace "
                     "of a string, Strip, or a Sequence of them")


def is_form(description: dict) -> bool:
    """Whether a normalizer is one of the FORMS: a part of a text that is in it is in it, too."""
    steps = description["normalizers"] if description["type"] == "Sequence" else [description]
    return len(steps) == 1 and steps[0]["type"] in FORMS


def to_form(form: str, text: str) -> str:
    """The text in a normalization form of Unicode 9.0."""
    if text.isascii():
        return text
    if form == "NFC" and len(text) >= MANY and (core := extension()):
        try:
            return with_parts(text, core.abnormal_parts(text).tolist(), partial(normal, form))
        except UnicodeEncodeError:              # surrogates
            pass
    return normal(form, text)


@lru_cache(1)
def extension() -> Any:
    return load_extension()


def with_parts(text: str, parts: list[list[int]], changed: Normalizer) -> str:
    """The text with some of its parts changed: the same object if none is."""
    found, at = list[str](), 0
    for start, end in parts:
        found += [text[at:start], changed(text[start:end])]
        at = end
    return "".join([*found, text[at:]]) if found else text


def normal(form: str, text: str) -> str:
    """The whole text in a form."""
    if LATER_CHARACTERS.isdisjoint(text):
        return normalize(form, text)            # type: ignore[arg-type]
    return "".join(part if i % 2 else normalize(form, part)            # type: ignore[arg-type]
                   for i, part in enumerate(LATER.split(text)))


def replacement(pattern: Any, content: str) -> Normalizer:
    old = pattern.get("String") if isinstance(pattern, dict) else None
    if not isinstance(old, str) or not old:
        raise ValueError(f"normalizer Replace must have a pattern of a String: got {pattern!r:.80}")
    return lambda text: text.replace(old, content)
