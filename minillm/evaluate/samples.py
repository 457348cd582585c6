"""Metrics of generated text: exact match, repetition, diversity, and memorization of the training data.

    exact match    the text up to a stop equals the answer, blanks at the ends apart
    repetition     share of n-grams that occurred before in the same text (n = 1 to 4)
    distinct       different n-grams over all n-grams of all texts (Li et al. 2016, "A diversity-promoting objective")
    memorization   the longest stretch of a text that stands in the training data word for word (Carlini et al. 2021,
                   "Extracting training data from large language models")
"""
from typing import NamedTuple

from ..data.sources.conversations import texts_in
from ..generation.decode import stream
from ..generation.text import first_token, text_of
from ..models.gpt2 import GPT
from ..progress import Report, tracked
from ..tokenizer import Tokenizer
from ..tokenizer.roles import opened


class Problem(NamedTuple):
    prompt: str
    answer: str


def problem_of(record: dict) -> Problem:
    """A record of JSONL, checked. Raises ValueError naming what is malformed."""
    return Problem(*texts_in(record, "prompt", "answer"))


def exact_matches(model: GPT, tokenizer: Tokenizer, problems: list[Problem], stop: str = "\n", max_new_tokens: int = 64,
                  progress: Report | None = None) -> list[bool]:
    """[right or wrong, ...] of the greedy continuation of each prompt, up to `stop` or the end of text."""
    return [continuation(model, tokenizer, problem.prompt, max_new_tokens, stop=stop).strip() == problem.answer.strip()
            for problem in tracked(problems, progress)]


def continuation(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, temperature: float = 0.0,
                 seed: int = 0, stop: str | None = None) -> str:
    """The text that a model generates after a prompt (or from the beginning of a document), up to `stop`."""
    ids = opened(tokenizer, tokenizer.encode_ordinary(prompt)) or [first_token(tokenizer)]
    return text_of(stream(model, ids, max_new_tokens, temperature, seed=seed), tokenizer, stop or ())


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def repetition(text: str, n: int = 4) -> float:
    """Share of the text's n-grams of words that occurred before in it; 0 for a text too short to have one."""
    grams = ngrams(text.split(), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: list[str], n: int = 2) -> float:
    """Different n-grams of words over all of them, in all texts together; 1 where there is none."""
    grams = [gram for text in texts for gram in ngrams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_overlap(text: str, corpus: bytes) -> bytes:
    """The longest stretch of `text` that stands in `corpus`, as UTF-8 bytes.

    A window grows at its end while it is found and loses its start when it is not: 2 len(text) searches in all.
    """
    data, start, best = text.encode(), 0, b""
    for end in range(1, len(data) + 1):
        while data[start:end] not in corpus:
            start += 1
        if end - start > len(best):
            best = data[start:end]
    return best
