"""Mask personal data and secrets in text, replaced by their kind: "write to <EMAIL>".

A pattern alone would find too much: card and account numbers must have a right check sum, an IP address must be one, a
phone number must be written as one or stand behind a word that says so, and not behind one that says it is not. What is
masked is counted by kind. Masking is for text that people will read or a model may memorize; it is no anonymisation.

Check sums: cards ISO/IEC 7812-1 (Luhn), accounts ISO 13616 (IBAN, modulo 97). Phone numbers: phone.py. How much is
found, and how much of that is none: tests/text/test_pii_measured.py.
"""
import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from .phone import CALLED, PHONE, is_called, is_phone

EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-zA-Z0-9-]{1,63}\.)+[a-zA-Z]{2,24}(?![\w-])"
IPV4 = r"(?<![\w.-])(?<!\w/)(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d|[\w-]|\.\w)"
IPV6 = r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:.])"
CARD = r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\d-])"
IBAN = r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)"
KEY = (r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^-]|-(?!----))+-----END [A-Z ]{0,40}PRIVATE KEY-----|"
       r"(?<!\w)(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{36,}|glpat-[\w-]{20,}|"
       r"hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|sk-[\w-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|"
       r"xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|GOCSPX-[\w-]{28}|SG\.[\w-]{22}\.[\w-]{43}|"
       r"(?<!-)eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?!\w)")
LISTED = r"(?:(?:\d+\.){2,}\d+\W{0,3}(?:(?:and|or|to|through)\W{1,2})?)*"        # "versions 1.2.3.4 and 1.2.3.5"
VERSION_BEFORE = re.compile(
    r"\b(?:(?:v|ver|versions?|releases?|builds?|revisions?|sections?|chapters?|clauses?|firmware|updates?)\W{0,3}"
    r"(?:(?:is|was|no|number|before|since|until)\W{1,2})?|(?:up|down)grad(?:e[ds]?|ing)\W{1,2}(?:(?:to|from)\W{1,2})?)"
    rf"{LISTED}$|[=<>~!]=\s?$", re.IGNORECASE)
VERSION_AFTER = re.compile(r"\W{1,2}(?:release|version|build)s?\b", re.IGNORECASE)
SMALL = re.compile(r"\d(?:\.\d\d?){3}")                     # more often a version, unless something tells an address
ADDRESS_BEFORE = re.compile(r"\b(?:ip|ipv4|address|addr|inet|hosts?|servers?|clients?|dns|nameserver|resolver|ping|"
                            r"gateway|router|network|subnet|proxy|peer|from|ssh|login)\b|//$|@$", re.IGNORECASE)
ADDRESS_AFTER = re.compile(r":\d|/\d|\W{1,2}port\b", re.IGNORECASE)
NETWORK = re.compile(r"3\d{13,15}|4(?:\d{12}|\d{15}|\d{18})|(?:2[2-7]|5[1-5])\d{14}|(?:5[06-8]|6)\d{11,18}")
AROUND = 32        # characters before and behind a find that may say what it is


def is_card(text: str, before: str = "", after: str = "") -> bool:
    """A card network's number that is right by Luhn: every second digit from the right doubled, its digits added; the
    sum ends in 0."""
    number = re.sub(r"\D", "", text)
    digits = list(map(int, number))
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1 and bool(NETWORK.fullmatch(number))


def is_iban(text: str, before: str = "", after: str = "") -> bool:
    """Four characters moved to the end, letters as numbers from A = 10: the remainder by 97 is 1."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def is_address(text: str, before: str = "", after: str = "") -> bool:
    """An address with at least three numbers ("::" is a slice), but no version and not everybody's own machine."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    common = address.is_loopback or address.is_unspecified or text.startswith(("0.", "1.3.", "2.5.", "255.255."))
    version = VERSION_BEFORE.search(before) or VERSION_AFTER.match(after) or SMALL.fullmatch(text) and not (
        ADDRESS_BEFORE.search(before) or ADDRESS_AFTER.match(after))
    return len(re.findall("[0-9a-fA-F]+", text)) >= 3 and not common and not version


KINDS = (   # kind, pattern, check; earlier kinds win, so a key with digits is not a phone number
    ("KEY", KEY, lambda *found: True), ("EMAIL", EMAIL, lambda *found: True), ("IBAN", IBAN, is_iban),
    ("CARD", CARD, is_card), ("IP", IPV4, is_address), ("IP", IPV6, is_address), ("PHONE", CALLED, is_called),
    ("PHONE", PHONE, is_phone))
PATTERNS = tuple((kind, re.compile(pattern), check) for kind, pattern, check in KINDS)


def mask(text: str) -> tuple[str, Any]:
    """(text with every find replaced by <KIND>, Counter of kinds)."""
    found = Counter()
    for kind, pattern, check in PATTERNS:
        def replace(match: re.Match, kind: str = kind, check: Callable = check) -> str:
            whole, end = match.string, match.end()
            start = match.start() + len(word := match.groupdict().get("before", ""))
            if not check(whole[start:end], whole[max(0, start - AROUND):start], whole[end:end + AROUND]):
                return match.group()
            found[kind] += 1
            return f"{word}<{kind}>"
        text = pattern.sub(replace, text)
    return text, found
