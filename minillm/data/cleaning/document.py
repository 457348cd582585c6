"""Cleaning one document: repair the text, score it, find the first rule that it breaks, mask personal data.

    repair     mojibake by ftfy (where installed), Unicode NFC
    lines      C4's line rules, if asked for
    scores     filters.SCORES of the chosen families; language, tokens per word, classifiers where asked for
    mask       e-mail, phone, IP, card and account numbers, keys
"""
import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ...text import pii
from ...text.toxicity import toxicity
from ...tokenizer import Tokenizer
from . import filters
from .classifier import Classifier
from .language import language_of

FAMILIES = ("gopher", "repetition", "c4")


@dataclass(frozen=True)
class CleanOptions:
    """families: of filters.SCORES. bounds: {score: (low, high)} instead of the table's. c4_lines: clean line by line.

    repair: None repairs where ftfy is installed. languages: ISO codes to keep (needs the extra `data`), with at least
    `language_probability`. tokenizer: directory, for tokens_per_word <= max_tokens_per_word. classifiers: {directory:
    (low, high)}. toxicity: highest probability (needs the extra `toxicity`). mask: personal data. processes: None for
    one a core. field: of a .jsonl record with the text. scheduler: of Dask, an address or "local", None for processes
    of our own. all_text: of a web page, not its main text alone.
    """
    families: tuple = ("gopher", "repetition")
    bounds: dict = field(default_factory=dict)
    c4_lines: bool = False
    repair: bool | None = None
    languages: tuple = ()
    language_probability: float = 0.5
    tokenizer: str | None = None
    max_tokens_per_word: float = 4.0
    classifiers: dict = field(default_factory=dict)
    toxicity: float | None = None
    mask: bool = True
    processes: int | None = None
    field: str = "text"
    scheduler: str | None = None
    all_text: bool = False

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(f"families must be some of {', '.join(FAMILIES)}: got {family!r}")
        for name in self.bounds:
            if name not in filters.SCORES:
                raise ValueError(f"bounds: unknown score {name!r}: expected one of {', '.join(filters.SCORES)}")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes must be at least 1: got {self.processes}")


class Cleaned(NamedTuple):
    """What became of a document. text: None if it is dropped, for `reason`; masked: finds by kind."""
    text: str | None
    reason: str | None
    scores: dict[str, float]
    masked: Counter
    lines_removed: int


def clean_batch(texts: list[str], options: CleanOptions) -> list[Cleaned]:
    """Clean some texts, as a worker does: it gets no records, of which it would have to know nothing."""
    rules = cached_rules(options)
    return [clean_document(text, options, rules) for text in texts]


def clean_document(text: str, options: CleanOptions, rules: dict) -> Cleaned:
    """Repair, score and mask one text. rules: of `rules_of`."""
    text, removed = unicodedata.normalize("NFC", text_repair(options.repair)(text)), 0
    if options.c4_lines:
        text, removed = filters.c4_lines(text)
    parts, scores, reason = filters.Parts(text), {}, None
    for name, (function, low, high) in rules.items():
        scores[name] = function(parts)
        if not low <= scores[name] <= high:
            reason = reason or f"{name} " + (f"below {low:g}" if scores[name] < low else f"above {high:g}")
    if options.languages:
        reason = reason or wrong_language(text, options)
    if reason or not text.strip():
        return Cleaned(None, reason or "nothing left", scores, Counter(), removed)
    text, masked = pii.mask(text) if options.mask else (text, Counter())
    return Cleaned(text, None, scores, masked, removed)


def rules_of(options: CleanOptions) -> dict:
    """{name: (function of filters.Parts -> number, low, high)} in the order in which they are tried."""
    found = {name: (score.function, *options.bounds.get(name, (score.low, score.high)))
             for name, score in filters.SCORES.items() if score.family in options.families or name in options.bounds}
    if options.tokenizer:
        encode = Tokenizer.from_pretrained(options.tokenizer).encode_ordinary
        found["tokens_per_word"] = (lambda d: filters.share(len(encode(d.text)), len(d.words)), 0,
                                    options.max_tokens_per_word)
    for directory, (low, high) in options.classifiers.items():
        score = Classifier.load(directory).score
        found[f"classifier_{Path(directory).name}"] = (lambda d, score=score: score(d.text), low, high)
    if options.toxicity is not None:
        found["toxicity"] = (lambda d: toxicity(d.text), 0, options.toxicity)
    return found


RULES: dict[str, dict] = {}


def cached_rules(options: CleanOptions) -> dict:
    """`rules_of`, once a process: it may load models."""
    key = json.dumps(asdict(options), default=str)
    if key not in RULES:
        RULES[key] = rules_of(options)
    return RULES[key]


@cache
def text_repair(wanted: bool | None) -> Callable[[str], str]:
    """ftfy's repair of wrongly decoded text, or the identity. Raises ImportError if it is `wanted` and missing."""
    try:
        from ftfy import fix_text
    except ImportError:
        if wanted:
            raise ImportError("repairing text needs ftfy: pip install 'minillm[data]'") from None
        return lambda text: text
    return (lambda text: text) if wanted is False else lambda text: fix_text(text, uncurl_quotes=False)


def wrong_language(text: str, options: CleanOptions) -> str | None:
    """The reason to drop a text of none of the languages to keep, or None."""
    language, probability = language_of(text)
    if language not in options.languages or probability < options.language_probability:
        return f"language not {' or '.join(options.languages)}"
    return None
