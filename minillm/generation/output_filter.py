"""The output filter: personal data and keys are masked in generated text, toxic sentences removed.

    OutputFilter     the detectors of text/ (personal data, toxicity), on a model's own sentences
    FilteredText     a TextStream that hands out whole sentences only, each filtered

The toxicity classifier knows English words: it has false negatives and false positives.
"""
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..text import pii
from ..text.toxicity import toxicity
from ..tokenizer import Tokenizer
from .text import TextStream

REMOVED = "[removed]"
SENTENCE_END = re.compile(r"[.!?\n]+[\"')\]]*\s+|\n")


@dataclass(frozen=True)
class OutputFilter:
    """mask: personal data and keys become their kind. toxicity: a sentence above this probability is removed; None for
    no such check (it needs the extra `toxicity`)."""

    mask: bool = True
    toxicity: float | None = None

    def __post_init__(self) -> None:
        if self.toxicity is not None:
            if not 0 < self.toxicity < 1:
                raise ValueError(f"toxicity must be a probability between 0 and 1: got {self.toxicity}")
            toxicity("")                                    # a missing extra is told now

    def __call__(self, text: str) -> str:
        """The text as it may go out."""
        if self.mask:
            text, _ = pii.mask(text)
        if self.toxicity is None:
            return text
        return "".join(self.checked(part) for part in sentences(text))

    def checked(self, sentence: str) -> str:
        """The sentence, or REMOVED with the white space around it."""
        words = sentence.strip()
        if not words or self.toxicity is None or toxicity(words) <= self.toxicity:
            return sentence
        return sentence.replace(words, REMOVED)


def sentences(text: str) -> list[str]:
    """The text cut behind each end of a sentence; joined they are the text."""
    edges = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    return [text[a:b] for a, b in zip(edges, edges[1:]) if a < b]


class FilteredText(TextStream):
    """A TextStream whose text goes out by whole sentences, through a filter (a function str -> str)."""

    def __init__(self, tokenizer: Tokenizer, stop: str | Iterable[str] = (),
                 check: Callable[[str], str] = OutputFilter()):
        super().__init__(tokenizer, stop)
        self.check, self.sentence = check, ""

    def release(self, text: str) -> str:
        self.sentence += super().release(text)
        cut = max((match.end() for match in SENTENCE_END.finditer(self.sentence)), default=0)
        if self.stopped is not None:
            cut = len(self.sentence)
        ready, self.sentence = self.sentence[:cut], self.sentence[cut:]
        return self.check(ready) if ready else ""

    def finish(self) -> str:
        last = super().release(self.decoder.decode(b"", final=True)) + self.held
        text, self.sentence, self.held = self.sentence + last, "", ""
        return self.check(text) if text else ""
