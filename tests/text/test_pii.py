"""Personal data: each kind that is masked, and what looks like it and stays."""
import re

import pytest

from minillm.text import pii

FOUND = {"EMAIL": ["jane.doe+x@mail.example.org"], "IP": ["192.168.17.4", "2001:db8::1:2"],
         "CARD": ["4111 1111 1111 1111", "5500005555555559"],
         "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
         "PHONE": ["+49 30 1234567", "(030) 1234 567", "555-123-4567", "+442079460958", "1-800-555-0199", "2831823829",
                   "12831823829", "+44 (0)20 7946 0958", "8 (495) 123-45-67", "06 12 34 56 78", "0049 30 1234567"],
         "KEY": ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "hf_" + "aB3" * 12,
                 "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"]}
LEFT = ["4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "999.1.2.3", "1.2.3.4.5", "2024-05-06", "12:30:45",
        "a[::2]",
        "3.14159265", "10 000 items", "user@localhost", "version 3.11.2", "0000000000000000", "pages 12-15", "x@y.z1",
        "call 2024-05-06", "call 06.05.2024", "v1.2.3.4", "version 1.2.3.4", "127.0.0.1",
        "4294967296", "3735928559 bytes", "order number 4839201745",
        "[3668361503, 4165561550]", "02110-1301", "9780306406157", "20080830 172159", "+35236450.6", "10 000 000"]


@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_masked(kind, text):
    assert pii.mask(f"see {text}, please") == (f"see <{kind}>, please", {kind: 1})


VERSIONS = ["version 1.2.3.4", "Version: 12.0.3.4", "versions 10.2.3.4, 10.2.3.5 and 10.2.4.0", "libfoo 1.2.3.4",
            "libfoo (1.2.3.4)", "foo==10.2.3.4", "foo>=10.2.3.4", "foo ~= 10.2.3.4", "10.2.3.4-1ubuntu2",
            "the 10.2.3.4 release", "before version 10.2.3.4", "version number 10.2.3.4", "firmware 10.2.3.4",
            "foo-10.2.3.4", "foo_10.2.3.4", "foo/10.2.3.4",
            "upgraded from 10.1.2.3 to 10.1.2.4", "package bar 2.4.6.8 installed"]
ADDRESSES = ["server 1.2.3.4", "host 10.2.3.4", "DNS 8.8.8.8", "ping 1.1.1.1", "http://1.2.3.4/a", "root@1.2.3.4",
             "listens on 1.2.3.4:80", "1.2.3.0/24", "update from 10.2.3.4", "10.20.30.40 connected",
             "1.2.3.140 connected", "build server 10.2.3.4", "from 10.2.3.4 to 10.2.3.5", "version 2 runs on 10.2.3.4"]


@pytest.mark.parametrize("text", VERSIONS)
def test_versions_are_no_addresses(text):
    assert pii.mask(f"see {text} please") == (f"see {text} please", {})


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_are_no_versions(text):
    assert pii.mask(f"see {text} please")[0] == re.sub(r"(?:\d+\.){3}\d+", "<IP>", f"see {text} please")


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


@pytest.mark.parametrize("text", ["Tel.: <2212 3456>", "call me at <277 1234>.", "Fax <62889 11>",
                                  "Mobil\t<62 345 678>", '"phone": "<0151-1234>"',
                                  "in 2021 <555-123-4567> 24 hours", "Doe,<555-123-4567>,90210"])
def test_what_a_word_tells(text):
    assert pii.mask(re.sub("[<>]", "", text))[0] == re.sub("<.*>", "<PHONE>", text)


def test_masking_a_long_line_is_not_quadratic():
    for piece in ("1 ", "a.", "a@", "12-34-", ":", "1.1.", "call ", "tel: me at ", "(0", "+1", "00 ",
                  "-----BEGIN PRIVATE KEY-----", "-eyJabcdefghijk", "A1 ", "my new number "):
        pii.mask(piece * 20_000)
