"""Writes csrc/text/unicode_tables.h: the Unicode classes that the pre-tokenization patterns name.

    python csrc/text/make_unicode_tables.py

The classes are read out of the installed `regex` package, character by character, so the C++ pre-tokenizer and the
Python one cannot disagree about what a letter is. Run it again after a new `regex` brings a new Unicode.
"""
import sys
from pathlib import Path

import regex

FLAGS = [("LETTER", r"\p{L}"), ("NUMBER", r"\p{N}"), ("SPACE", r"\s"),
         ("UPPER", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"), ("LOWER", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")]

# The first letter, digit or mark that each version added: the newest one that `regex` knows tells its Unicode.
NEWCOMERS = {"14.0": 0x870, "15.0": 0x11F02, "15.1": 0x2EBF0, "16.0": 0x1C89, "17.0": 0x11B60}

HEADER = """\
// Made by csrc/text/make_unicode_tables.py from regex {version} (Unicode {unicode}). Do not edit.
//
// Runs of code points of one kind: {{first code point, kind}}, up to the next entry. A kind is a sum of flags.
#pragma once

#include <cstdint>

enum Kind : uint8_t {{ {enum} }};
constexpr char REGEX_VERSION[] = "{version}", UNICODE_VERSION[] = "{unicode}";

struct KindRun {{ uint32_t first; uint8_t kind; }};
constexpr KindRun KIND_RUNS[] = {{
{runs}
}};
"""


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


def unicode_version() -> str:
    known = [version for version, code in NEWCOMERS.items() if regex.match(r"[\p{L}\p{N}\p{M}]", chr(code))]
    return known[-1] if known else "13.0 or older"


def main():
    enum = ", ".join(f"{name} = {1 << bit}" for bit, (name, _) in enumerate(FLAGS))
    cells = [f"{{0x{code:X}, {kind}}}," for code, kind in runs(kinds())]
    lines = ["    " + " ".join(cells[i:i + 8]) for i in range(0, len(cells), 8)]
    text = HEADER.format(version=regex.__version__, unicode=unicode_version(), enum=enum, runs="\n".join(lines))
    target = Path(__file__).with_name("unicode_tables.h")
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(cells)} runs, Unicode {unicode_version()}", file=sys.stderr)


if __name__ == "__main__":
    main()
