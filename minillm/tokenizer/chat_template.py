"""The chat template: a conversation as tokens, and the loss mask over them.

    <|user|>What is six times seven?<|end|><|assistant|>Forty-two.<|end|>
                                                        ~~~~~~~~~~~~~~~~~ learned: the assistant's words and its end

A role's mark and the end mark are special tokens. What people write between them is encoded as ordinary text, so nobody
can forge a turn by typing a mark. Only the assistant's tokens have a loss: the model is to answer, not to imitate
the questions.

A model without marks in its vocabulary gets plain text, which one trained on web pages knows how to go on with:

    User: What is BPE?

    Assistant:
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..storage.atomic import write_json
from .bpe import Tokenizer

Message = dict[str, Any]                # {"role", "content"}

ROLES = ("system", "user", "assistant")
END = "<|end|>"
VOICES = {"developer": "system"}        # OpenAI's newer name for it
MARKS = (*(f"<|{role}|>" for role in ROLES), END)
JINJA = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


class Example(NamedTuple):
    """A document and its loss mask: which of its tokens are learned."""

    ids: list[int]
    learned: list[bool]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """tokens (T,), targets (T,): targets are the next tokens, -1 where they are not learned."""
        ids, learned = np.array(self.ids, np.int64), np.array(self.learned)
        return ids[:-1], np.where(learned[1:], ids[1:], -1)


def encode_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> Example:
    """[{"role", "content"}, ...] -> Example: the assistant's content and its end mark are learned, but for a message
    with "weight": 0."""
    ids: list[int] = []
    learned: list[bool] = []
    for message in messages:
        content = tokenizer.encode_ordinary(message["content"])
        ids += [mark(tokenizer, f"<|{message['role']}|>"), *content, mark(tokenizer, END)]
        wanted = message["role"] == "assistant" and message.get("weight", 1) != 0
        learned += [False, *[wanted] * (len(content) + 1)]
    return Example(ids, learned)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids that a model continues with its answer: the conversation so far, and the assistant's mark."""
    return [*encode_messages(tokenizer, messages).ids, mark(tokenizer, "<|assistant|>")]


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], tuple[str, ...], set[int]]:
    """messages [{"role", "content"}] -> (ids, stop strings, stop ids); the answer follows and ends at a stop."""
    messages = [{"role": VOICES.get(m["role"], m["role"]), "content": m["content"]} for m in messages]
    if all(mark in tokenizer.special_tokens for mark in MARKS):
        return encode_prompt(tokenizer, messages), (), {tokenizer.special_tokens[END]}
    text = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages) + "Assistant:"
    return tokenizer.encode_ordinary(text), ("\nUser:", "\nSystem:"), set()


def mark(tokenizer: Tokenizer, text: str) -> int:
    """The id of a mark. Raises ValueError if the tokenizer has none: it was never made for conversations."""
    if text not in tokenizer.special_tokens:
        raise ValueError(f"the tokenizer has no special token {text}: fine-tune the model with `minillm sft` first")
    return tokenizer.special_tokens[text]


def answer_end(tokenizer: Tokenizer) -> int | None:
    """The token that ends an answer: learned by fine-tuning, sampled up to, and what the files of a model say."""
    return tokenizer.special_tokens.get(END, tokenizer.eot_token)


def end_tokens(tokenizer: Tokenizer) -> set[int]:
    """The tokens after which no more is generated: the end of an answer, that of a document, what the model names."""
    return {end for end in (answer_end(tokenizer), tokenizer.eot_token) if end is not None} | tokenizer.ends


def save_tokenizer(tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write the tokenizer and, if it knows conversations, tokenizer_config.json, from which transformers'
    apply_chat_template makes the same ids. The directory is made if need be."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory)
    if END in tokenizer.special_tokens:
        document = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": JINJA}
        write_json(Path(directory) / "tokenizer_config.json", document, indent=2)
