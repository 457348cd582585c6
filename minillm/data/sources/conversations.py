"""Conversations and preferences from JSONL files, as tokens.

One JSON object a line, in the forms of TRL (huggingface.co/docs/trl, "Dataset formats"):

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"prompt": ..., "completion": ...}
    {"prompt": ..., "chosen": ..., "rejected": ...}         (the prompt may also be the shared start of the two)

with each of prompt, completion, chosen and rejected a list of messages, or plain text, which stays without marks.
"""
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ...storage.atomic import AnyPath
from ...tokenizer import Tokenizer
from ...tokenizer.chat_template import ROLES, Example, answer_end, encode_messages
from .plain_text import LONGEST_LINE, numbered_lines

SHOWN = 5                      # malformed records named in one error


class Preference(NamedTuple):
    """Two answers to one prompt."""

    chosen: Example
    rejected: Example


def read_examples(path: AnyPath, tokenizer: Tokenizer) -> list[Example]:
    """JSONL with messages or prompt/completion -> list of Example. Raises ValueError that names the malformed lines."""
    return read_jsonl(path, lambda record: example_of(record, tokenizer))


def read_preferences(path: AnyPath, tokenizer: Tokenizer) -> list[Preference]:
    """JSONL with prompt/chosen/rejected -> list of Preference. Raises ValueError that names the malformed lines."""
    return read_jsonl(path, lambda record: preference_of(record, tokenizer))


def read_jsonl(path: AnyPath, convert: Callable[[dict], Any]) -> list:
    """convert(record) of every line. All lines are read before the first few that are malformed are reported."""
    converted, problems = [], []
    with open(path, "rb") as file:                       # a line that is no UTF-8 is one of the malformed
        for number, line in numbered_lines(file):
            try:
                if line is None:
                    raise ValueError(f"longer than {LONGEST_LINE >> 20} MiB")
                record = json.loads(line.decode().rstrip("\r\n"))
                if not isinstance(record, dict):
                    raise ValueError(f"expected a JSON object: got {type(record).__name__}")
                converted.append(convert(record))
            except json.JSONDecodeError as error:                     # its own "line 1" would contradict ours
                problems.append(f"{path}:{number}: no JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:
                problems.append(f"{path}:{number}: {error}")
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more lines" if len(problems) > SHOWN else ""
        raise ValueError("malformed records\n" + "\n".join(problems[:SHOWN]) + more)
    if not converted:
        raise ValueError(f"{path}: no records: expected one JSON object a line")
    return converted


def texts_in(record: dict, *names: str) -> list[str]:
    """What a record holds under these names. Raises ValueError naming one that is no text, or empty."""
    for name in names:
        if not isinstance(record.get(name), str) or not record[name]:
            raise ValueError(f"{name} must be text that is not empty")
    return [record[name] for name in names]


def example_of(record: dict, tokenizer: Tokenizer) -> Example:
    if "messages" in record:
        example = encode_messages(tokenizer, check_messages(record["messages"], "messages"))
    elif "prompt" in record and "completion" in record:
        example = answer_to(tokenizer, record["prompt"], record["completion"], "completion")
    else:
        raise ValueError(f"expected messages, or prompt and completion: got the keys {', '.join(record) or 'none'}")
    if not any(example.learned[1:]):
        raise ValueError("no message of the assistant: there is nothing to learn")
    return example


def preference_of(record: dict, tokenizer: Tokenizer) -> Preference:
    if "chosen" not in record or "rejected" not in record:
        raise ValueError(f"expected prompt, chosen and rejected: got the keys {', '.join(record) or 'none'}")
    prompt, chosen, rejected = split_prompt(record)
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal")
    pair = Preference(*(answer_to(tokenizer, prompt, answer, name)
                        for name, answer in (("chosen", chosen), ("rejected", rejected))))
    for name, example in zip(Preference._fields, pair):
        if not any(example.learned[1:]):
            raise ValueError(f"{name} holds no message of the assistant: there is nothing to compare")
    return pair


def split_prompt(record: dict) -> tuple[Any, Any, Any]:
    """(prompt, chosen, rejected); without a prompt it is the messages with which the two answers begin alike."""
    chosen, rejected = record["chosen"], record["rejected"]
    if "prompt" in record:
        return record["prompt"], chosen, rejected
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        raise ValueError("prompt is missing: only conversations may hold it in chosen and rejected")
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return chosen[:same], chosen[same:], rejected[same:]


def answer_to(tokenizer: Tokenizer, prompt: Any, answer: Any, name: str) -> Example:
    """Example of a prompt and an answer, both messages or both plain text; the answer's end is learned, too."""
    if isinstance(prompt, str) and isinstance(answer, str):
        before, after = tokenizer.encode_ordinary(prompt), tokenizer.encode_ordinary(answer)
        end, document = ([] if id is None else [id] for id in (answer_end(tokenizer), tokenizer.eot_token))
        start = [] if before else document or end           # something must stand before the first learned token
        return Example([*start, *before, *after, *end], [False] * len(start + before) + [True] * len(after + end))
    if isinstance(prompt, str) or isinstance(answer, str):
        raise ValueError(f"prompt and {name} must be both text or both lists of messages")
    messages = [*check_messages(prompt, "prompt"), *check_messages(answer, name)]
    return encode_messages(tokenizer, messages, first=len(prompt))


def check_messages(messages: Any, name: str) -> list[dict]:
    if not isinstance(messages, list):
        raise ValueError(f"{name} must be a list of messages: got {type(messages).__name__}")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(f"{name}[{i}] must have a role of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"{name}[{i}].content must be text")
    return messages
