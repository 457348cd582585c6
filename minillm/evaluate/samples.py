"""What a model writes: exact answers, how often it repeats itself, and what it has by heart.

    exact match    the text up to a stop equals the answer, blanks at the ends apart
    repetition     share of n-grams that occurred before in the same text (n = 1 to 4)
    distinct       different n-grams over all n-grams of all texts (Li et al. 2016, "A diversity-promoting objective")
    memorisation   the longest stretch of a text that stands in the training data word for word (Carlini et al. 2021,
                   "Extracting training data from large language models")
"""
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..data.sources.conversations import check_object, read_records
from ..generation.decode import stream
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer


class Problem(NamedTuple):
    prompt: str
    answer: str


def read_problems(path: AnyPath) -> list[Problem]:
    """JSONL with prompt and answer -> list of Problem. Raises ValueError that names the malformed lines."""
    return read_records(path, problem_of)


def problem_of(record: Any) -> Problem:
    check_object(record)
    for name in ("prompt", "answer"):
        if not isinstance(record.get(name), str) or not record[name]:
            raise ValueError(f"{name} must be text that is not empty")
    return Problem(record["prompt"], record["answer"])


def exact_matches(model: Any, tokenizer: Tokenizer, problems: Sequence[Problem], stop: str | None = "\n",
                  max_new_tokens: int = 64, progress: Callable | None = None) -> Any:
    """[right or wrong, ...] of the likeliest continuation (greedy) of each prompt, up to `stop` or the end of text."""
    right = []
    for i, problem in enumerate(problems):
        text = continuation(model, tokenizer, problem.prompt, max_new_tokens, stop=stop)
        right.append(text.strip() == problem.answer.strip())
        if progress:
            progress(i + 1, len(problems), "")
    return right


def continuation(model: Any, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, temperature: float = 0.0,
                 seed: int = 0, stop: str | None = None) -> str:
    """The text that follows a prompt (or begins a document), up to `stop`."""
    ids: Any = tokenizer.encode_ordinary(prompt) or [tokenizer.eot_token]
    found = []
    for token in stream(model, ids, max_new_tokens, temperature, seed=seed, stop=tokenizer.eot_token):
        found.append(token)
        text = tokenizer.decode([id for id in found if id != tokenizer.eot_token])
        if stop and stop in text:
            return text.partition(stop)[0]
    return tokenizer.decode([id for id in found if id != tokenizer.eot_token])


def ngrams(words: list[str], n: int) -> Any:
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def repetition(text: str, n: int = 4) -> float:
    """Share of the text's n-grams of words that occurred before in it; 0 for a text too short to have one."""
    grams = ngrams(text.split(), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """Different n-grams of words over all of them, in all texts together; 1 where there is none."""
    grams = [gram for text in texts for gram in ngrams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_overlap(text: str, corpus: bytes) -> bytes:
    """The longest stretch of `text` that stands in `corpus` (bytes), as bytes.

    A window grows at its end while it is found and loses its start when it is not: 2 len(text) searches in all.
    """
    written, start, best = text.encode(), 0, b""
    for end in range(1, len(written) + 1):
        while written[start:end] not in corpus:
            start += 1
        if end - start > len(best):
            best = written[start:end]
    return best
