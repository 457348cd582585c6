"""Mask personal data and secrets in text, replaced by their kind: "write to <EMAIL>".

A pattern alone would find too much: card and account numbers must have a right check sum, an IP address must be one, a
phone number must have a plausible count of digits and something that is not just digits. What is masked is counted by
kind. Masking is for text that people will read or a model may memorize; it is no anonymisation.

Check sums: cards ISO/IEC 7812-1 (Luhn), accounts ISO 13616 (IBAN, modulo 97).
"""
import ipaddress
import re
from collections import Counter
from typing import Any

EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-zA-Z0-9-]{1,63}\.)+[a-zA-Z]{2,24}(?![\w-])"
IPV4 = r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)"
IPV6 = r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:.])"
CARD = r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"
IBAN = r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)"
PHONE = r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?\d{2,8}(?:[ .-]\d{2,8}){0,4}(?![\w.-]*\d)"
KEY = (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END [A-Z ]*PRIVATE KEY-----|(?<!\w)(?:AKIA[0-9A-Z]{16}|"
       r"gh[pousr]_[A-Za-z0-9]{36,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|"
       r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})(?!\w)")


def is_card(text: str) -> bool:
    """Right by Luhn: from the right, every second digit doubled, its digits added; the sum ends in 0."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Four characters moved to the end, letters as numbers from A = 10: the remainder by 97 is 1."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def is_address(text: str) -> bool:
    """An address with at least three numbers: "::1" is everybody's own machine, and "::" a slice in Python."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return len(re.findall("[0-9a-fA-F]+", text)) >= 3


def is_phone(text: str) -> bool:
    """7 to 15 digits (ITU-T E.164), and a sign that it is one: +, brackets, or three groups."""
    digits = sum(c.isdigit() for c in text)
    groups = len(re.findall(r"\d+", text))
    looks_like_date = re.fullmatch(r"(?:\d{4}[ .-]\d{2}[ .-]\d{2}|\d{2}[ .-]\d{2}[ .-]\d{4})", text)
    return 7 <= digits <= 15 and not looks_like_date and (text[0] in "+(" or groups >= 3)


KINDS = (   # kind, pattern, check; earlier kinds win, so a key with digits is not a phone number
    ("KEY", KEY, bool), ("EMAIL", EMAIL, bool), ("IBAN", IBAN, is_iban), ("CARD", CARD, is_card),
    ("IP", IPV4, is_address), ("IP", IPV6, is_address), ("PHONE", PHONE, is_phone))
PATTERNS = tuple((kind, re.compile(pattern), check) for kind, pattern, check in KINDS)


def mask(text: str) -> tuple[str, Any]:
    """(text with every find replaced by <KIND>, Counter of kinds)."""
    found = Counter()
    for kind, pattern, check in PATTERNS:
        def replace(match: re.Match, kind: str = kind, check: Any = check) -> str:
            if not check(match.group()):
                return match.group()
            found[kind] += 1
            return f"<{kind}>"
        text = pattern.sub(replace, text)
    return text, found
