"""What a model writes: exact answers, how often it repeats itself, and what it has by heart.

    exact match    the text up to a stop equals the answer, blanks at the ends apart
    repetition     share of n-grams that occurred before in the same text (n = 1 to 4)
    distinct       different n-grams over all n-grams of all texts (Li et al. 2016, "A diversity-promoting objective")
    memorisation   the longest stretch of a text that stands in the training data word for word (Carlini et al. 2021,
                   "Extracting training data from large language models")
"""
from typing import NamedTuple

from ..data.sources.conversations import check_object, read_records
from ..generation.decode import stream


class Problem(NamedTuple):
    prompt: str
    answer: str


def read_problems(path):
    """JSONL with prompt and answer -> list of Problem. Raises ValueError that names the malformed lines."""
    return read_records(path, problem_of)


def problem_of(record):
    check_object(record)
    for name in ("prompt", "answer"):
        if not isinstance(record.get(name), str) or not record[name]:
            raise ValueError(f"{name} must be text that is not empty")
    return Problem(record["prompt"], record["answer"])


def exact_matches(model, tokenizer, problems, stop="\n", max_new_tokens=64, progress=None):
    """[right or wrong, ...] of the likeliest continuation (greedy) of each prompt, up to `stop` or the end of text."""
    right = []
    for i, problem in enumerate(problems):
        text = continuation(model, tokenizer, problem.prompt, max_new_tokens, stop=stop)
        right.append(text.strip() == problem.answer.strip())
        if progress:
            progress(i + 1, len(problems), "")
    return right


def continuation(model, tokenizer, prompt, max_new_tokens, temperature=0.0, seed=0, stop=None):
    """The text that follows a prompt (or begins a document), up to `stop`."""
    ids = tokenizer.encode_ordinary(prompt) or [tokenizer.eot_token]
    found = []
    for token in stream(model, ids, max_new_tokens, temperature, seed=seed, stop=tokenizer.eot_token):
        found.append(token)
        text = tokenizer.decode([id for id in found if id != tokenizer.eot_token])
        if stop and stop in text:
            return text.partition(stop)[0]
    return tokenizer.decode([id for id in found if id != tokenizer.eot_token])


def ngrams(words, n):
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def repetition(text, n=4):
    """Share of the text's n-grams of words that occurred before in it; 0 for a text too short to have one."""
    grams = ngrams(text.split(), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts, n=2):
    """Different n-grams of words over all of them, in all texts together; 1 where there is none."""
    grams = [gram for text in texts for gram in ngrams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_overlap(text, corpus):
    """The longest stretch of `text` that stands in `corpus` (bytes), as bytes.

    A window grows at its end while it is found and loses its start when it is not: 2 len(text) searches in all.
    """
    text, start, best = text.encode(), 0, b""
    for end in range(1, len(text) + 1):
        while text[start:end] not in corpus:
            start += 1
        if end - start > len(best):
            best = text[start:end]
    return best
