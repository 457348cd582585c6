"""Multiple choice: accuracy of the continuation that the model gives the highest log-probability.

A record is {"prompt": "The sky is", "choices": [" blue", " loud"], "answer": 0}. The log-probability of a choice after
the prompt favours short ones, so three scores are given: the sum, the mean per token and the mean per byte of the
choice (the latter does not depend on the tokenizer; Gao 2021, "Multiple choice normalization in LM evaluation").
"""
from typing import NamedTuple

import numpy as np

from ..models.gpt2 import GPT
from ..progress import Report, tracked
from ..tokenizer import Tokenizer
from ..tokenizer.roles import begun, opened

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
    for question in tracked(questions, progress):
        logps, tokens, sizes = zip(*(score_choice(model, tokenizer, question.prompt, c) for c in question.choices))
        for score, values in zip(SCORES, (logps, np.divide(logps, tokens), np.divide(logps, sizes))):
            right[score].append(int(np.argmax(values)) == question.answer)
    return right


def score_choice(model: GPT, tokenizer: Tokenizer, prompt: str, choice: str) -> tuple[float, int, int]:
    """(log p(choice | prompt) in nats, its tokens, its UTF-8 bytes).

    Prompt and choice are encoded apart, as a model that generates would see them. What exceeds the context length loses
    the start of the prompt; a choice that exceeds it alone is a ValueError.
    """
    before, after = opened(tokenizer, tokenizer.encode_ordinary(prompt)), tokenizer.encode_continuation(choice)
    if not before:
        before = begun(tokenizer, []) or after[:1]
    if len(after) > (block_size := model.config.block_size):
        raise ValueError(f"a choice has {len(after)} tokens, the context holds {block_size}: {choice[:40]!r}")
    ids = np.array((before + after)[-block_size - 1:])
    losses, _ = model.losses(ids[None, :-1], ids[None, 1:])
    return -float(losses[len(losses) - len(after):].sum(dtype=np.float64)), len(after), len(choice.encode())
