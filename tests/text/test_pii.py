"""Personal data: each kind that is masked, and what looks like it and stays."""
import pytest

from minillm.text import pii

FOUND = {"EMAIL": ["jane.doe+x@mail.example.org"], "IP": ["192.168.17.4", "2001:db8::1:2"],
         "CARD": ["4111 1111 1111 1111", "5500005555555559"],
         "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
         "PHONE": ["+49 30 1234567", "(030) 1234 567", "555-123-4567"],
         "KEY": ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18,
                 "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"]}
LEFT = ["4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "999.1.2.3", "1.2.3.4.5", "2024-05-06", "12:30:45",
        "a[::2]",
        "3.14159265", "10 000 items", "user@localhost", "version 3.11.2", "0000000000000000", "pages 12-15", "x@y.z1"]


@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_masked(kind, text):
    assert pii.mask(f"see {text}, please") == (f"see <{kind}>, please", {kind: 1})


@pytest.mark.parametrize("text", LEFT)
def test_what_is_left(text):
    assert pii.mask(f"see {text} please") == (f"see {text} please", {})


def test_a_card_with_any_digit_changed_is_none():
    """Luhn finds every single wrong digit."""
    card = "4539578763621486"
    assert pii.is_card(card)
    for place in range(16):
        for digit in set("0123456789") - {card[place]}:
            assert not pii.is_card(card[:place] + digit + card[place + 1:])


def test_masking_a_long_line_is_not_quadratic():
    for piece in ("1 ", "a.", "a@", "12-34-", ":", "1.1."):
        pii.mask(piece * 20_000)
