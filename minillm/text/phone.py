"""Phone numbers in text: patterns of how they are written, and checks of what else a find might be.

    with a sign of it      +44 20 7946 0958 (ITU-T E.164), 1-800-555-0199 (North American plan), (030) 123456 (trunk)
    without any            2831823829: ten digits, or eleven from 0 or 1 on, if nothing beside them says otherwise
    behind a word          "Tel.: 2212 3456", where any seven digits will do
"""
import re

GAP = r"[ .\-/\u00a0\u2010-\u2013]"                            # within a number
MARK = r"""[ \t:.,;"'=#*>\-]"""                                # between the word and the number
WORD = (r"(?:tele(?:ph|f)one?|phones?|tel|tél|mobile?|mob|cell|fax|call|whatsapp|dial|ring|text|sms|hotline|"
        r"(?:my|our|his|her|their|contact) (?:new )?number)")
CALLED = (rf"(?P<before>(?i:\b{WORD}\b)(?:{MARK}{{1,4}}[a-z]{{2,7}}){{0,3}}{MARK}{{1,4}})"
          rf"\(?\+?\d(?:(?:{GAP}|[()]){{0,2}}\d){{6,14}}(?!\w|[.,:-]\d)")

INTERNATIONAL = rf"(?:\+|(?<!\d )00{GAP}?)[1-9](?:(?:{GAP}|[()]){{0,2}}\d){{7,14}}"
AMERICAN = (rf"(?:1{GAP}?)?(?:\([2-9]\d\d\){GAP}?\d{{3}}{GAP}|"
            rf"[2-9]\d\d(?:(?P<gap>{GAP})\d{{3}}(?P=gap)| \d{{3}}-))\d{{4}}")
BARE = r"1?[2-9]\d{9}|0[1-9]\d{8,9}"
TRUNK = (rf"\(0[1-9]\d{{0,4}}\){GAP}?\d{{2,8}}(?:{GAP}\d{{2,8}}){{0,3}}|"
         rf"(?<!\d )(?!\d{{5}}-\d{{4}}\b)0[1-9]\d{{0,4}}(?:{GAP}\d{{2,9}}){{1,4}}")          # but no postal code
RUSSIAN, CHINESE = rf"8{GAP}?\(?\d{{3}}\)?{GAP}\d{{3}}-\d\d-\d\d", rf"1[3-9]\d{GAP}\d{{4}}{GAP}\d{{4}}"
BRAZILIAN = r"\([1-9]\d\) ?\d{4,5}-\d{4}"
PHONE = (r"(?<![\w+.#$€£=/@-])(?<!\d[,:])(?:"
         + "|".join([INTERNATIONAL, AMERICAN, BARE, TRUNK, RUSSIAN, CHINESE, BRAZILIAN]) + r")(?!\w|[.:/-]\d)")

DATE = re.compile(r"(?:1[6-9]|20)\d\d[ ./-](?:0[1-9]|1[0-2])[ ./-][0-3]\d|[0-3]\d[ ./-][0-3]\d[ ./-](?:1[6-9]|20)\d\d")
DECIMAL = re.compile(r"\+\d+\.\d+")
OTHER_WORD = re.compile(
    r"\b(?:isbn(?:-1[03])?|issn|ids?|order|serial|sku|ticket|invoice|account|seed|hash|doi|pmid|orcid|ref|reference|"
    r"tracking|case|item|part|version|key|code|vat|ein|asin|upc|ean|gtin|lot|batch|build|revision|port|offset|size|"
    r"merge|commit|counter|timestamp|time|value|total|sum|result|returns?|integer|modulo|prime)\W{0,3}"
    r"(?:(?:no|number|nr|numbers|is|was|of)\W{1,3}){0,2}$", re.IGNORECASE)
UNIT = re.compile(r" ?(?:[kmgt]?i?b|bytes?|bits?|[nmu]?s|seconds?|people|years?|times|rows|tokens|[mk]?m|kg|hz|dollars|"
                  r"euros?|usd|eur)\b| ?[%€$]", re.IGNORECASE)
IN_CODE = re.compile(r"(?:[*/%^&|<>\[+]|\w\(|\d[,\]}]) *$")      # before a number of a list or a formula
NEXT_IN_LIST = re.compile(r",? ?-?\d")
SEQUENCES = ("0123456789", "9876543210", "0987654321")


def is_called(text: str, before: str, after: str) -> bool:
    """Whether what stands behind a word such as "phone" may be a number to call."""
    return not (DATE.match(text) or UNIT.match(after) or OTHER_WORD.search(before))


def is_phone(text: str, before: str, after: str) -> bool:
    """Whether a find of PHONE is one, and neither a date, an amount, a number of something else nor of a program."""
    digits = re.sub(r"\D", "", text)
    if text == digits and is_computed(digits, before, after) or not is_called(text, before, after):
        return False
    if text.startswith(("+1", "001")):
        return bool(re.fullmatch("(?:00)?1[2-9][0-9]{9}", digits))
    trunk = text.startswith(("0", "(0")) and not text.startswith("00")
    return not (digits.endswith("00000") or DECIMAL.fullmatch(text) or trunk and not 9 <= len(digits) <= 12)


def is_computed(digits: str, before: str, after: str) -> bool:
    """Whether bare digits are those of a program: a power of two or one less, all digits in order, part of a list."""
    number = int(digits)
    return (number & (number - 1) == 0 or number & (number + 1) == 0 or digits in SEQUENCES
            or bool(IN_CODE.search(before) or NEXT_IN_LIST.match(after)))
