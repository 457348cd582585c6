"""The chat template: a conversation as tokens, and the loss mask over them.

    <|user|>What is six times seven?<|end|><|assistant|>Forty-two.<|end|>
                                                        ~~~~~~~~~~~~~~~~~ learned: the assistant's words and its end

A role's mark and the end mark are special tokens. What people write between them is encoded as ordinary text, so nobody
can forge a turn by typing a mark. Only the assistant's tokens have a loss: the model is to answer, not to imitate
the questions.

A model without marks in its vocabulary gets plain text, which one trained on web pages knows how to go on with:

    User: What is BPE?

    Assistant:

A directory whose files bring a chat template of their own is spoken to in that (jinja_template.py).
"""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..storage.atomic import write_json
from . import jinja_template
from .bpe import Tokenizer
from .jinja_template import NOTHING, Templates
from .roles import CONFIG, TextEnds, document_start, opened, role_id
from .tool_turns import JINJA, tools_as_text

Message = dict[str, Any]                # {"role", "content"}

ROLES = ("system", "user", "assistant")
END = "<|end|>"
VOICES = {"developer": "system"}        # OpenAI's newer name for it
MARKS = (*(f"<|{role}|>" for role in ROLES), END)
OURS = (JINJA,
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")      # the same, as it was written before


class Example(NamedTuple):
    """A document and its loss mask: which of its tokens are learned."""

    ids: list[int]
    learned: list[bool]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """tokens (T,), targets (T,): targets are the next tokens, -1 where they are not learned."""
        ids, learned = np.array(self.ids, np.int64), np.array(self.learned)
        return ids[:-1], np.where(learned[1:], ids[1:], -1)


def own_template(tokenizer: Tokenizer) -> Templates | None:
    """The chat template that the tokenizer's directory brought; None for ours, which needs no Jinja."""
    template = tokenizer.template
    ours = template is not None and len(template.sources) == 1 and template.sources.get("default") in OURS
    return None if ours and all(mark in tokenizer.special_tokens for mark in MARKS) else template


def check_template(tokenizer: Tokenizer) -> None:
    """Raise ImportError if the directory's chat template needs Jinja and it is not there."""
    if own_template(tokenizer):
        jinja_template.need_jinja()


def encode_messages(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[dict] | None = None,
                    more: Mapping[str, Any] = NOTHING) -> Example:
    """[{"role", "content"}, ...] -> Example: the assistant's content and its end mark are learned, but for a message
    with "weight": 0. more: "documents" and what else a directory's own template reads."""
    if template := own_template(tokenizer):
        return encode_rendered(tokenizer, template, messages, {**more, "tools": tools})
    no_more(more)
    ids: list[int] = []
    learned: list[bool] = []
    for message in tools_as_text(messages, tools or ()):
        content = tokenizer.encode_ordinary(message["content"])
        ids += [mark(tokenizer, f"<|{message['role']}|>"), *content, mark(tokenizer, END)]
        learned += [False, *[message["role"] == "assistant" and weighs(message)] * (len(content) + 1)]
    return Example(ids, learned)


def weighs(message: Message) -> bool:
    return message.get("weight", 1) != 0


def encode_rendered(tokenizer: Tokenizer, template: Templates, messages: Sequence[Message],
                    more: Mapping[str, Any]) -> Example:
    """`encode_messages` by a directory's own template."""
    wanted = [weighs(message) for message in messages if message["role"] == "assistant"]
    messages, more, guard = guarded(tokenizer, messages, more)
    text, spoken = template.rendered(messages, frozenset(tokenizer.special_tokens), more)
    if not all(wanted):
        if len(spoken) != len(wanted):
            raise ValueError(f"the chat template marks {len(spoken)} passages by {{% generation %}} for {len(wanted)} "
                             "messages of the assistant, of which not all are to be learned")
        spoken = [span for span, want in zip(spoken, wanted) if want]
    ids, offsets = jinja_template.encode(tokenizer, text, guard)
    return Example(ids, jinja_template.touched(offsets, spoken))


def guarded(tokenizer: Tokenizer, messages: Sequence[Message], more: Mapping[str, Any]) -> tuple[Any, Any, str]:
    """Messages and more for a directory's own template, so that no special token is forged; and the guard in them."""
    messages = [{key: message[key] for key in message if key != "weight"} for message in messages]
    guard, specials = jinja_template.guard_for(messages, dict(more)), frozenset(tokenizer.special_tokens)
    return *jinja_template.guarded([messages, more], specials, guard), guard


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[dict] | None = None,
                  more: Mapping[str, Any] = NOTHING) -> list[int]:
    """The ids that a model continues with its answer: the conversation so far, and the assistant's mark."""
    if template := own_template(tokenizer):
        messages, more, guard = guarded(tokenizer, messages, {**more, "tools": tools})
        return jinja_template.encode(tokenizer, template.render(messages, True, more), guard)[0]
    return [*encode_messages(tokenizer, messages, tools, more).ids, mark(tokenizer, "<|assistant|>")]


def no_more(more: Mapping[str, Any]) -> None:
    """Our own template has a place for messages and tools alone."""
    for name, value in more.items():
        if value:
            raise ValueError(f"{name}: this model's chat template has no place for it")


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[dict] | None = None,
                more: Mapping[str, Any] = NOTHING) -> tuple[list[int], tuple[str, ...], set[int]]:
    """messages [{"role", "content"}] -> (ids, stop strings, stop ids); the answer follows and ends at a stop. tools and
    more as of `encode_messages`."""
    template, ends = own_template(tokenizer), end_tokens(tokenizer)
    if template is None or "developer" not in template.sources.get("default", ""):
        messages = [message | {"role": VOICES.get(message["role"], message["role"])} for message in messages]
    if template:
        ids = encode_prompt(tokenizer, messages, tools, more)
        end, after = template.end(tokenizer.special_tokens), template.after_answer.rstrip()
        return (ids, (after,) if after else (), ends) if end is None else (
            ids, (), ends | {tokenizer.special_tokens[end]})
    no_more(more)
    messages = tools_as_text(messages, tools or ())
    if all(mark in tokenizer.special_tokens for mark in MARKS):
        return encode_prompt(tokenizer, messages), (), ends | {tokenizer.special_tokens[END]}
    text = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages) + "Assistant:"
    return opened(tokenizer, tokenizer.encode_ordinary(text)), ("\nUser:", "\nSystem:"), ends


def mark(tokenizer: Tokenizer, text: str) -> int:
    """The id of a mark. Raises ValueError if the tokenizer has none: it was never made for conversations."""
    if text not in tokenizer.special_tokens:
        raise ValueError(f"the tokenizer has no special token {text}: fine-tune the model with `minillm sft` first")
    return tokenizer.special_tokens[text]


def answer_end(tokenizer: Tokenizer) -> int | None:
    """The token that ends an answer, which fine-tuning teaches: that of the chat template; without one, what the files
    name, the tokenizer's own word first where the model agrees."""
    template, eos = own_template(tokenizer), role_id(tokenizer, "eos_token")
    end = template.end(tokenizer.special_tokens) if template else END
    if end in tokenizer.special_tokens:
        return tokenizer.special_tokens[end]
    candidates = [id for id in (eos, tokenizer.eot_token) if id is not None]
    agreed = [id for id in candidates if id in tokenizer.ends] + sorted(tokenizer.ends) + candidates
    return next(iter(agreed), None)


def end_tokens(tokenizer: Tokenizer) -> set[int]:
    """The tokens after which no more is generated: those that the model's files name, or else the tokenizer's, or else
    the end of an answer and that of a document."""
    if tokenizer.ends:
        return set(tokenizer.ends)
    eos = role_id(tokenizer, "eos_token")
    ends = [eos] if eos is not None else [tokenizer.special_tokens.get(END), tokenizer.eot_token]
    return {end for end in ends if end is not None}


def learned_ends(tokenizer: Tokenizer) -> TextEnds:
    """What the files of a model trained with this tokenizer name: the end of an answer, then the other ends."""
    end, bos = answer_end(tokenizer), document_start(tokenizer)
    others = {id for id in (*end_tokens(tokenizer), tokenizer.eot_token) if id is not None and id != end}
    return TextEnds(tuple(id for id in (end, *sorted(others)) if id is not None), bos)


def special_text(tokenizer: Tokenizer, id: int | None) -> str | None:
    """The text of a special token."""
    return next((text for text, known in tokenizer.special_tokens.items() if known == id), None)


def save_tokenizer(tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write the tokenizer and, if it knows conversations or roles of special tokens, tokenizer_config.json, from which
    transformers' apply_chat_template makes the same ids. The directory is made if need be."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory)
    template, end, roles = own_template(tokenizer), answer_end(tokenizer), dict(tokenizer.roles)
    known = {"default": JINJA} if END in tokenizer.special_tokens else {}
    sources = template.sources if template else known
    if not sources and not roles:
        return
    roles |= {"eos_token": text} if (text := special_text(tokenizer, end)) else {}
    document = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles}
    if sources:
        document["chat_template"] = sources["default"] if list(sources) == ["default"] else [
            {"name": name, "template": source} for name, source in sources.items()]
    write_json(Path(directory) / CONFIG, document, indent=2)
