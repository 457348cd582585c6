"""Multiple choice: accuracy of the continuation that the model gives the highest log-probability.

A record is {"prompt": "The sky is", "choices": [" blue", " loud"], "answer": 0}. The log-probability of a choice after
the prompt favours short ones, so three scores are given: the sum, the mean per token and the mean per byte of the
choice (the latter does not depend on the tokenizer; Gao 2021, "Multiple choice normalization in LM evaluation").
"""
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..models.gpt2 import GPT
from ..progress import Report, tracked
from ..tokenizer import Tokenizer
from ..tokenizer.roles import begun, opened
from .perplexity import losses_of

SCORES = ("sum", "per token", "per byte")


class Question(NamedTuple):
    prompt: str
    choices: list[str]
    answer: int


def question_of(record: dict) -> Question:
    """A record of JSONL, checked. Raises ValueError naming what is malformed."""
    prompt, choices, answer = (record.get(name) for name in ("prompt", "choices", "answer"))
    if not isinstance(prompt, str):
        raise ValueError("prompt must be text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("choices must be a list of at least two texts, none empty")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"answer must be the number of a choice, 0 to {len(choices) - 1}: got {answer!r}")
    return Question(prompt, choices, answer)


def answer_all(model: GPT, tokenizer: Tokenizer, questions: list[Question],
               progress: Report | None = None) -> dict[str, list[bool]]:
    """{score: [right or wrong, ...]} for each way to normalize the log-probability."""
    right: dict[str, list[bool]] = {score: [] for score in SCORES}
    scored = scores_of(model, tokenizer, [(q.prompt, choice) for q in questions for choice in q.choices])
    for question in tracked(questions, progress):
        logps, tokens, sizes = zip(*(next(scored) for _ in question.choices))
        for score, values in zip(SCORES, (logps, np.divide(logps, tokens), np.divide(logps, sizes))):
            right[score].append(int(np.argmax(values)) == question.answer)
    return right


def scores_of(model: GPT, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[float, int, int]]:
    """(log p(choice | prompt) in nats, the choice's tokens, its UTF-8 bytes) for each (prompt, choice); several of them
    share a forward pass."""
    encoded = deque[int]()                               # tokens of the choices that `losses_of` has read ahead

    def texts() -> Iterator[list[int]]:
        for prompt, choice in pairs:
            ids, length = prompt_and_choice(model, tokenizer, prompt, choice)
            encoded.append(length)
            yield ids
    for (_, choice), losses in zip(pairs, losses_of(model, texts())):
        length = encoded.popleft()
        yield -float(losses[len(losses) - length:].sum()), length, len(choice.encode())


def prompt_and_choice(model: GPT, tokenizer: Tokenizer, prompt: str, choice: str) -> tuple[list[int], int]:
    """The ids of both, and how many are the choice's.

    They are encoded apart, as a model that generates would see them. What exceeds the context length loses the start of
    the prompt; a choice that exceeds it alone is a ValueError.
    """
    before, after = opened(tokenizer, tokenizer.encode_ordinary(prompt)), tokenizer.encode_continuation(choice)
    if not before:
        before = begun(tokenizer, []) or after[:1]
    if len(after) > (block_size := model.config.block_size):
        raise ValueError(f"a choice has {len(after)} tokens, the context holds {block_size}: {choice[:40]!r}")
    return (before + after)[-block_size - 1:], len(after)
