r"""Pre-tokenizers of Hugging Face's tokenizer.json: Split, Digits and ByteLevel, alone or in a Sequence.

    Split       cuts at the matches of a pattern: each on its own (Isolated), dropped (Removed), at the end of what is
                before it, at the start of what is behind it, or neighbours together (Contiguous); `invert` takes the
                matches for the rest and the rest for matches
    Digits      cuts out runs of digits, or each digit
    ByteLevel   puts a space before what begins without one, if asked to, and cuts as GPT-2 does, if asked to; then
                bytes are what is left, so it must be the last

The well-known ones have names (pretokenize.PATTERNS), and C++ that cuts as they do. Any other is a pattern by its JSON:
it is cut by `regex`, step by step, with the same result but about 50 times more slowly. Their patterns are Oniguruma's,
in Ruby's syntax: `$` is the end of a line, and `{1,3}+` a run of such runs.
"""
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

import regex

from .pinned import pinned

Words = Iterable[str]
Step = Callable[[str], Words]

BEHAVIORS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
FOREIGN = regex.compile(r"(?<!\\)(?:\\\\)*(\\[^pPsSdDrntfvx0-9u\W]|\(\?[^:!=<i>])")      # what `regex` reads otherwise
SETS = regex.compile(r"&&|\[(?:[^\]\\\[]|\\.)+\[")           # of sets: what only version 1 of `regex` knows
NEW_DIGITS = dict.fromkeys([*range(0x11DE0, 0x11DEA), *range(0x16FF4, 0x16FF7)], "1")   # Digits has Unicode 17.0
REPEATED = regex.compile(r"((?:\\[pP]\{\w+\}|\\?[^\\\])}]|\[(?:\\.|[^\]\\])*\])\{\d*,?\d*\})\+")


def steps_of(description: Any) -> list[dict]:
    """The steps of a pre_tokenizer, the last a ByteLevel. Raises ValueError naming what is not known."""
    flat = list(flattened(description))
    kinds = [step["type"] for step in flat]
    if "ByteLevel" not in kinds or kinds.index("ByteLevel") < len(kinds) - 1:
        raise ValueError(f"pre_tokenizer must end with its one ByteLevel: got {', '.join(kinds) or 'none'}")
    return flat


def flattened(description: Any) -> Iterator[dict]:
    kind = description.get("type") if isinstance(description, dict) else None
    if kind == "Sequence" and isinstance(description.get("pretokenizers"), list):
        for step in description["pretokenizers"]:
            yield from flattened(step)
    elif kind == "Digits":
        yield {"type": kind, "individual_digits": description.get("individual_digits", False) is True}
    elif kind == "ByteLevel":
        yield {"type": kind, "add_prefix_space": description.get("add_prefix_space", True) is True,
               "use_regex": description.get("use_regex", True) is True}
    elif kind == "Split":
        yield checked_split(description)
    else:
        raise ValueError(f"pre_tokenizer {kind or description!r:.80} is not known: expected Split, Digits, ByteLevel "
                         "or a Sequence of them")


def checked_split(description: dict) -> dict:
    pattern: Any = description.get("pattern")
    behavior = description.get("behavior")
    kinds = [kind for kind in ("Regex", "String") if isinstance(pattern, dict) and isinstance(pattern.get(kind), str)]
    if not kinds or behavior not in BEHAVIORS:
        raise ValueError("pre_tokenizer Split must have a Regex or a String and a known behavior: got "
                         f"{pattern!r:.80}, {behavior!r:.80}")
    return {"type": "Split", "pattern": {kinds[0]: pattern[kinds[0]]}, "behavior": behavior,
            "invert": description.get("invert", False) is True}


@cache
def cutter(description: str, gpt2: str) -> Step:
    """The function that cuts a text into words; description: steps_of a pre_tokenizer, as JSON; gpt2: that pattern."""
    steps = [step_function(step, gpt2) for step in json.loads(description)]

    def words(text: str) -> Words:
        found: Words = [text]
        for step in steps:
            found = [part for word in found for part in step(word) if part]
        return found
    return words


def step_function(step: dict, gpt2: str) -> Step:
    if step["type"] == "Digits":
        pattern = regex.compile(r"\p{N}|\P{N}+" if step["individual_digits"] else r"\p{N}+|\P{N}+")
        return tiled(pattern, lambda text: pinned(text.translate(NEW_DIGITS)))
    if step["type"] == "Split":
        (kind, pattern), = step["pattern"].items()
        find = compile_foreign(regex.escape(pattern) if kind == "String" else pattern).finditer
        seen = pinned if regex.search(r"\\[pPwWd]", pattern) else str          # what it spells out stays as it is
        return lambda text: joined(marked(text, lambda text: find(seen(text)), step["invert"]), step["behavior"])
    find_all = tiled(regex.compile(gpt2)) if step["use_regex"] else lambda text: [text]
    return lambda text: find_all(" " + text if step["add_prefix_space"] and text[:1] != " " else text)


def tiled(pattern: regex.Pattern, seen: Callable[[str], str] = pinned) -> Step:
    """The matches, in Unicode 16.0, of a pattern whose matches tile every text."""
    return lambda text: [text[slice(*match.span())] for match in pattern.finditer(seen(text))]


def compile_foreign(pattern: str) -> regex.Pattern:
    """An Oniguruma pattern, compiled. Raises ValueError for what `regex` does not read the same way."""
    if found := FOREIGN.search(pattern):
        raise ValueError(f"pre_tokenizer Split's pattern has {found[1]!r}, which is not supported: {pattern!r:.200}")
    version = regex.V1 if SETS.search(pattern) else regex.V0
    try:
        return regex.compile(REPEATED.sub(r"(?:\1)+", pattern), regex.MULTILINE | version)
    except regex.error as error:
        message = f"pre_tokenizer Split's pattern is no regular expression ({error}): {pattern!r:.200}"
        raise ValueError(message) from None


def marked(text: str, find: Callable, invert: bool) -> list[tuple[str, bool]]:
    """The text in parts: (part, whether it matches)."""
    parts, done = [], 0
    for match in find(text):
        start, end = match.span()
        if start > done:
            parts.append((text[done:start], invert))
        if end > start:
            parts.append((text[start:end], not invert))
        done = end
    if done < len(text):
        parts.append((text[done:], invert))
    return parts


def joined(parts: list[tuple[str, bool]], behavior: str) -> Words:
    """The words that a behavior makes of the parts."""
    if behavior == "Isolated":
        return [part for part, _ in parts]
    if behavior == "Removed":
        return [part for part, matches in parts if not matches]
    if behavior == "Contiguous":
        return ["".join(part for part, _ in run) for _, run in groupby(parts, key=lambda part: part[1])]
    if behavior == "MergedWithNext":
        backwards = with_previous([(part[::-1], matches) for part, matches in parts[::-1]])
        return [word[::-1] for word in backwards[::-1]]
    return with_previous(parts)


def with_previous(parts: list[tuple[str, bool]]) -> list[str]:
    """Each match joined to what is before it, unless that is a match, too."""
    words: list[str] = []
    previous = False
    for part, matches in parts:
        if matches and not previous and words:
            words[-1] += part
        else:
            words.append(part)
        previous = matches
    return words
