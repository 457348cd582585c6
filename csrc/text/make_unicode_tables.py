"""Writes csrc/text/unicode_tables.h and minillm/tokenizer/unicode_classes.py: the Unicode classes that the
pre-tokenization patterns name.

    pip install regex==2025.7.34 && python csrc/text/make_unicode_tables.py

The classes are read out of the installed `regex` package, character by character. They are pinned to the Unicode of
tiktoken: the ids of a text must not change with the packages that happen to be installed.
"""
import sys
from pathlib import Path
from textwrap import fill

import regex

FLAGS = [("LETTER", r"\p{L}"), ("NUMBER", r"\p{N}"), ("SPACE", r"\s"),
         ("UPPER", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"), ("LOWER", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
         ("SIGN", r"[\p{P}\p{S}]")]

UNICODE = "16.0"        # of tiktoken 0.14

# The first letter, digit or mark that each version added: the newest one that `regex` knows tells its Unicode.
NEWCOMERS = {"14.0": 0x870, "15.0": 0x11F02, "15.1": 0x2EBF0, "16.0": 0x1C89, "17.0": 0x11B60}

HEADER = """\
// Made by csrc/text/make_unicode_tables.py from Unicode {unicode}. Do not edit.
//
// Runs of code points of one kind: {{first code point, kind}}, up to the next entry. A kind is a sum of flags.
#pragma once

#include <cstdint>

enum Kind : uint8_t {{ {enum} }};
constexpr char UNICODE_VERSION[] = "{unicode}";

struct KindRun {{ uint32_t first; uint8_t kind; }};
constexpr KindRun KIND_RUNS[] = {{
{runs}
}};
"""

MODULE = '''\
"""Made by csrc/text/make_unicode_tables.py from Unicode {unicode}. Do not edit.

RUNS: how many code points, from 0 on, are of which kind: a letter for a sum of FLAGS (A is 0), or two, in turns.
"""
UNICODE = "{unicode}"
FLAGS = {{{flags}}}
RUNS = """
{runs}
"""
'''


def kinds() -> list[int]:
    """The kind of every code point. Surrogates cannot occur in UTF-8 and stay 0."""
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    found = [0] * 0x110000
    for bit, (_, pattern) in enumerate(FLAGS):
        for char in regex.findall(pattern, everything):
            found[ord(char)] |= 1 << bit
    return found


def runs(found: list[int]) -> list[tuple[int, int]]:
    return [(code, kind) for code, kind in enumerate(found) if code == 0 or kind != found[code - 1]]


def cells(lengths: list[tuple[int, str]]) -> list[str]:
    """"12JR" for 12 code points that are J and R in turns, as capital and small letters often are; "J" for one."""
    found: list[tuple[int, str]] = []
    for length, letter in lengths:
        before, letters = found[-1] if found else (0, "")
        if length == 1 and (before == 1 or len(letters) == 2 and letters[before % 2] == letter):
            found[-1] = before + 1, (letters + letter)[:2]
        else:
            found.append((length, letter))
    return [f"{length if length > 1 else ''}{letters}" for length, letters in found]


def unicode_version() -> str:
    known = [version for version, code in NEWCOMERS.items() if regex.match(r"[\p{L}\p{N}\p{M}]", chr(code))]
    return known[-1] if known else "13.0 or older"


def main():
    if unicode_version() != UNICODE:
        raise SystemExit(f"regex {regex.__version__} has Unicode {unicode_version()}: expected one with {UNICODE}")
    found = runs(kinds())
    enum = ", ".join(f"{name} = {1 << bit}" for bit, (name, _) in enumerate(FLAGS))
    entries = [f"{{0x{code:X}, {kind}}}," for code, kind in found]
    lines = ["    " + " ".join(entries[i:i + 8]) for i in range(0, len(entries), 8)]
    here = Path(__file__).parent
    write(here / "unicode_tables.h", HEADER.format(unicode=UNICODE, enum=enum, runs="\n".join(lines)))
    ends = [code for code, _ in found[1:]] + [0x110000]
    lengths = [(end - code, chr(ord("A") + kind)) for (code, kind), end in zip(found, ends)]
    packed = fill(" ".join(cells(lengths)), 120)
    flags = ",\n         ".join(f'r"{pattern}": {1 << bit}' for bit, (_, pattern) in enumerate(FLAGS))
    write(here.parents[1] / "minillm" / "tokenizer" / "unicode_classes.py",
          MODULE.format(unicode=UNICODE, flags=flags, runs=packed))


def write(target: Path, text: str):
    target.write_text(text, encoding="utf-8")
    print(target, file=sys.stderr)


if __name__ == "__main__":
    main()
