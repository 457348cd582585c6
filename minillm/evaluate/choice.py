"""Questions with choices: which continuation does the model find likeliest?

A record is {"prompt": "The sky is", "choices": [" blue", " loud"], "answer": 0}. The log-probability of a choice after
the prompt favours short ones, so three scores are given: the sum, the mean per token and the mean per byte of the
choice (the latter does not depend on the tokenizer; Gao 2021, "Multiple choice normalization in LM evaluation").
"""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.sources.conversations import check_object, read_records
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer

SCORES = ("sum", "per token", "per byte")


class Question(NamedTuple):
    prompt: str
    choices: list[str]
    answer: int


def read_questions(path: AnyPath) -> list[Question]:
    """JSONL -> list of Question. Raises ValueError that names the malformed lines."""
    return read_records(path, question_of)


def question_of(record: Any) -> Question:
    check_object(record)
    prompt, choices, answer = (record.get(name) for name in ("prompt", "choices", "answer"))
    if not isinstance(prompt, str):
        raise ValueError("prompt must be text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("choices must be a list of at least two texts, none empty")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"answer must be the number of a choice, 0 to {len(choices) - 1}: got {answer!r}")
    return Question(prompt, choices, answer)


def answer_all(model: Any, tokenizer: Tokenizer, questions: Sequence[Question],
               progress: Callable | None = None) -> Any:
    """{score: [right or wrong, ...]} for each way to score."""
    right = {score: [] for score in SCORES}
    for i, question in enumerate(questions):
        logps, tokens, sizes = zip(*(score_choice(model, tokenizer, question.prompt, c) for c in question.choices))
        for score, values in zip(SCORES, (logps, np.divide(logps, tokens), np.divide(logps, sizes))):
            right[score].append(int(np.argmax(values)) == question.answer)
        if progress:
            progress(i + 1, len(questions), "")
    return right


def score_choice(model: Any, tokenizer: Tokenizer, prompt: str, choice: str) -> Any:
    """(log p(choice | prompt) in nats, its tokens, its UTF-8 bytes).

    Prompt and choice are encoded apart, as a model that generates would see them. What is longer than the context loses
    the start of the prompt; a choice that fills the context by itself is an error.
    """
    before, after = tokenizer.encode_ordinary(prompt), tokenizer.encode_ordinary(choice)
    if not before:
        before = [tokenizer.eot_token if tokenizer.eot_token is not None else after[0]]
    if len(after) > model.config.block_size:
        raise ValueError(f"a choice has {len(after)} tokens, the context holds {model.config.block_size}: "
                         f"{choice[:40]!r}")
    ids = np.array((before + after)[-model.config.block_size - 1:])
    losses, _ = model.losses(ids[None, :-1], ids[None, 1:])
    return -float(losses[len(losses) - len(after):].sum(dtype=np.float64)), len(after), len(choice.encode())
