"""NFC by parts is NFC: C++ finds what may change, and nothing else can."""
import random
import unicodedata

import pytest
from tokenizer_texts import core, needs_core

from minillm.tokenizer.normalize import MANY, normal, to_form

pytestmark = needs_core

CHARACTERS = ["a", "e", "é", "\u0301", "\u0323", "ж", "中", "か", "\u3099", "한", "\u1100", "\u1161", "\u11a8",
              "\u212b", "\u0958", "\u09c7", "\u09be", "\u0374", "\u2000", "\U0001d15e", "\U0002f800", "😀",
              "\u200d", "\ufe0f", "\u0591", "\u08d3", "\U00011935", "\U00011930", "ﬁ", "ā", "\u0344"]


def changes(char, seconds):
    """Whether NFC may replace, move or join it to what is before it."""
    return unicodedata.combining(char) or unicodedata.normalize("NFC", char) != char or char in seconds


def test_characters_that_stay_do():
    """By Unicode's data; jamo are joined by a rule."""
    seconds = {*map(chr, range(0x1161, 0x1176)), *map(chr, range(0x11A8, 0x11C3))}
    everything = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    for char in everything:
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    stay = [char for char in everything if not len(core.abnormal_parts("a" + char))]
    assert not [char for char in stay if changes(char, seconds)]
    assert len(stay) > 90_000
    assert len(core.abnormal_parts("a".join(map(chr, range(0x30000, 0x30100))))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_nfc_by_parts_is_nfc(seed):
    rng = random.Random(seed)
    for _ in range(150):
        some = rng.sample(CHARACTERS, rng.randint(2, 12))
        text = "".join(rng.choice(some) + "x" * rng.choice((0, 0, 1, 31, 32, 33, 70)) for _ in range(MANY))
        assert to_form("NFC", text) == normal("NFC", text), text


def test_texts_that_stay_are_not_copied_and_surrogates_pass():
    text = "Größe, 中文, 한국어, “so” 😀 " * 20
    assert to_form("NFC", text) is text
    assert to_form("NFC", text + "\ud800") == text + "\ud800"
