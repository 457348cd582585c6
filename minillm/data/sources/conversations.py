"""Conversations and preferences of files, as tokens: a record of any of the forms in chat_formats.py after the other.

A record that fits no form, or has nothing to learn, is left out, and told with its line and the reason.
"""
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from ...storage.atomic import AnyPath
from ...tokenizer import Tokenizer
from ...tokenizer.chat_template import Example, answer_end, encode_messages
from ...tokenizer.roles import opened
from .chat_formats import answered, pair_of
from .record_files import convert_records, listed

Say = Callable[[str], object]


class Preference(NamedTuple):
    """Two answers to one prompt."""

    chosen: Example
    rejected: Example


def read_examples(path: AnyPath, tokenizer: Tokenizer, say: Say = lambda text: None) -> list[Example]:
    """A file of conversations (of pairs the chosen ones) -> list of Example. say: gets a line on what was read, and on
    what was left out. Raises ValueError where nothing can be used, naming the reasons."""
    return read_chats(path, lambda record, told: example_of(record, tokenizer, told), say)


def read_preferences(path: AnyPath, tokenizer: Tokenizer, say: Say = lambda text: None) -> list[Preference]:
    """A file of pairs -> list of Preference, as read_examples."""
    return read_chats(path, lambda record, told: preference_of(record, tokenizer, told), say)


class Told:
    """What was read: how many records of each form, and parts of another kind than text that were left out."""

    def __init__(self) -> None:
        self.forms, self.left_out = Counter[str](), Counter[str]()

    def add(self, form: str, left_out: Counter) -> None:
        self.forms[form] += 1
        self.left_out += left_out

    def __str__(self) -> str:
        """"1,234 ShareGPT conversations, 12 Alpaca instructions; left out: 3 images"."""
        forms, left_out = (", ".join(f"{count:,} {name}{'s' * (count != 1)}" for name, count in counter.most_common())
                           for counter in (self.forms, self.left_out))
        return forms + (f"; left out, for only text is read: {left_out}" if left_out else "")


def read_chats(path: AnyPath, convert: Callable[[dict, Told], Any], say: Say) -> list:
    told = Told()
    found, problems = convert_records(path, lambda record: convert(record, told))
    if not found:
        raise ValueError(f"{path}: none of its {len(problems):,} record(s) can be used\n{listed(problems)}")
    say(f"read        {told}")
    if problems:
        say(f"skipped     {len(problems):,} of {len(found) + len(problems):,} records:\n{listed(problems)}")
    return found


def example_of(record: dict, tokenizer: Tokenizer, told: Told | None = None) -> Example:
    form, prompt, answer, tools, left_out = answered(record)
    example = answer_to(tokenizer, prompt, answer, tools)
    if not any(example.learned[1:]):
        raise ValueError("no message of the assistant: there is nothing to learn")
    if told:
        told.add(form, left_out)
    return example


def preference_of(record: dict, tokenizer: Tokenizer, told: Told | None = None) -> Preference:
    form, prompt, chosen, rejected, tools, left_out = pair_of(record)
    pair = Preference(answer_to(tokenizer, prompt, chosen, tools), answer_to(tokenizer, prompt, rejected, tools))
    for name, example in zip(Preference._fields, pair):
        if not any(example.learned[1:]):
            raise ValueError(f"{name} holds no message of the assistant: there is nothing to compare")
    if told:
        told.add(form, left_out)
    return pair


def answer_to(tokenizer: Tokenizer, prompt: Any, answer: Any, tools: list[dict]) -> Example:
    """Example of a prompt and an answer, both messages or both plain text; the answer's end is learned, too."""
    if not isinstance(prompt, str):
        return encode_messages(tokenizer, [m | {"weight": 0} for m in prompt] + answer, tools or None)
    before, after = opened(tokenizer, tokenizer.encode_ordinary(prompt)), tokenizer.encode_continuation(answer)
    end, document = ([] if id is None else [id] for id in (answer_end(tokenizer), tokenizer.eot_token))
    start = [] if before else document or end               # something must stand before the first learned token
    return Example([*start, *before, *after, *end], [False] * len(start + before) + [True] * len(after + end))


def texts_in(record: dict, *names: str) -> list[str]:
    """What a record holds under these names. Raises ValueError naming one that is no text, or empty."""
    for name in names:
        if not isinstance(record.get(name), str) or not record[name]:
            raise ValueError(f"{name} must be text that is not empty")
    return [record[name] for name in names]
