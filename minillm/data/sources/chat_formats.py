"""The forms in which people keep conversations, instructions and preferences; each record is brought to one form.

    conversation     {"messages": [{"role": "user", "content": ...}, ...]}                (OpenAI, TRL), perhaps "tools"
    ShareGPT         {"conversations": [{"from": "human", "value": ...}, ...]}            perhaps "system", "tools"
    Alpaca           {"instruction": ..., "input": ..., "output": ...}                    perhaps "system", "history"
    prompt           {"prompt": ..., "completion": ...}
    pairs            {"prompt": ..., "chosen": ..., "rejected": ...}; the prompt may stand in ShareGPT's or Alpaca's
                     form beside the two, or be what they begin with (UltraFeedback, binarized)
                     {"instruction": ..., "completions": [{"response": ..., "overall_score": ...}, ...]} (UltraFeedback)
                     {"input": {"messages": ...}, "preferred_output": ..., "non_preferred_output": ...}  (OpenAI)
    HH pairs         {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}        (Bai et al. 2022)

A prompt and its answer are both lists of messages or both plain text, which stays without marks. A content may be a
list of parts, of which only text is read; a message of the assistant may call tools, and a role may be "tool".
"""
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]              # {"role", "content": text}, perhaps "tool_calls": a list, and "weight": 0

SPEAKERS = {"system": ("developer",), "user": ("human", "prompter"),
            "assistant": ("gpt", "chatgpt", "bard", "bing", "claude", "model", "bot", "function_call", "tool_call"),
            "tool": ("function", "observation", "function_response", "tool_response", "ipython")}
ROLE_OF = {name: role for role, names in SPEAKERS.items() for name in (role, *names)}
CALLS = ("function_call", "tool_call")                       # as a speaker: what is said is a call, in JSON
TEXT_PARTS = ("text", "input_text", "output_text")
QUESTIONS, CONTEXTS = ("instruction", "question", "query"), ("input", "context")
ANSWERS = ("output", "response", "answer")
SYSTEMS = ("system", "system_prompt")
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
EXPECTED = {"example": "messages, or prompt and completion, or ShareGPT's conversations, or Alpaca's instruction and "
                       "output", "pair": "prompt, chosen and rejected"}


class Answered(NamedTuple):
    """A prompt and the answer to learn, both messages or both plain text; tools the model may call; the record's form,
    and what of it is left out, {"image": 2}."""

    form: str
    prompt: Any
    answer: Any
    tools: list[dict]
    left_out: Counter


class Pair(NamedTuple):
    """The same with two answers."""

    form: str
    prompt: Any
    chosen: Any
    rejected: Any
    tools: list[dict]
    left_out: Counter


def answered(record: dict) -> Answered:
    """A record of whatever form; of a pair the chosen answer. Raises ValueError that says what is wrong with it."""
    record, left_out = {key: value for key, value in record.items() if value is not None}, Counter[str]()
    if "messages" not in record and "completion" not in record and {"chosen", "rejected"} <= as_pair(record).keys():
        pair = pair_of(record)
        return Answered(pair.form, pair.prompt, pair.chosen, pair.tools, pair.left_out)
    if "prompt" in record and "completion" in record:
        prompt, answer = prompt_and_answers(record["prompt"], {"completion": record["completion"]}, left_out)
        if isinstance(prompt, list) and answer[:len(prompt)] == prompt:
            answer = answer[len(prompt):]                                                   # which had repeated it
        form = "prompt/completion record"
    else:
        form, prompt, answer = conversation_of(record, left_out)
    if isinstance(answer, list) and not any(m["role"] == "assistant" and (m["content"] or m.get("tool_calls"))
                                            for m in answer):
        raise ValueError("no message of the assistant: there is nothing to learn")
    return Answered(form, prompt, answer, tools_of(record), left_out)


def pair_of(record: dict) -> Pair:
    """A record with two answers to one prompt. Raises ValueError that says what is wrong with it."""
    record, left_out = as_pair({key: value for key, value in record.items() if value is not None}), Counter[str]()
    answers = {name: record.get(name) for name in ("chosen", "rejected")}
    if None in answers.values():
        raise ValueError(unknown("pair", record))
    form, prompt = "pair", record.get("prompt")
    if prompt is None and (key := key_of_turns(record)):
        form, prompt = f"{form_of(record[key])} pair".removeprefix("conversation "), record[key]
        prompt = opening(record) + messages_of(prompt, key, left_out)
    elif prompt is None and given(record, QUESTIONS):
        form, prompt = "Alpaca pair", opening(record) + history_of(record) + [user(instruction_of(record))]
    elif is_transcript(prompt, *answers.values()):
        start = prompt or ""
        form, prompt = "HH pair", None
        answers = {name: transcript(start + str(text), name) for name, text in answers.items()}
    prompt, chosen, rejected = split_prompt(prompt, *prompt_and_answers(prompt, answers, left_out))
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal")
    return Pair(form, prompt, chosen, rejected, tools_of(record), left_out)


def as_pair(record: dict) -> dict:
    """The record with prompt, chosen and rejected, where it holds them in UltraFeedback's or OpenAI's words."""
    if {"input", "preferred_output", "non_preferred_output"} <= record.keys() and isinstance(record["input"], dict):
        return {"prompt": record["input"].get("messages"), "tools": record["input"].get("tools"),
                "chosen": record["preferred_output"], "rejected": record["non_preferred_output"]}
    rated = [c for c in record.get("completions", ()) if isinstance(c, dict) and "response" in c
             and type(c.get("overall_score")) in (int, float)] if isinstance(record.get("completions"), list) else []
    if "instruction" not in record or len(rated) < 2:
        return record
    worst, *_, best = sorted(rated, key=lambda c: c["overall_score"])
    if worst["overall_score"] == best["overall_score"]:
        raise ValueError("all completions have one overall_score")
    return {"instruction": record["instruction"], "chosen": best["response"], "rejected": worst["response"]}


def conversation_of(record: dict, left_out: Counter) -> tuple[str, list[Message], list[Message]]:
    """(form, no prompt, all of its messages)."""
    if key := key_of_turns(record):
        turns = record[key]
        images = count_images(record)
        left_out.update({"image": images} if images else {})
        messages = messages_of(turns, key, left_out)
        for message in messages if images else []:
            message["content"] = message["content"].replace("<image>", "").strip()
        return f"{form_of(turns)} conversation".removeprefix("conversation "), [], opening(record, messages) + messages
    if given(record, QUESTIONS) and given(record, ANSWERS):
        answer = {"role": "assistant", "content": text_of(record, ANSWERS)}
        return ("Alpaca instruction", [],
                [*opening(record), *history_of(record), user(instruction_of(record)), answer])
    raise ValueError(unknown("example", record))


def unknown(kind: str, record: dict) -> str:
    return f"expected {EXPECTED[kind]}: got the keys {', '.join(map(str, record)) or 'none'}"


# ---- prompts and answers ----

def prompt_and_answers(prompt: Any, answers: dict[str, Any], left_out: Counter) -> list:
    """[prompt, each answer]: all messages, or all plain text. Messages that come alone stand for a list of one."""
    lists = {name: [answer] if isinstance(answer, dict) else answer for name, answer in answers.items()}
    if isinstance(prompt, list):                                   # what is answered in plain text is an assistant's
        lists = {name: [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
                 for name, answer in lists.items()}
    texts = [isinstance(value, str) for value in lists.values()]
    if all(texts) and isinstance(prompt, str):
        return [prompt, *lists.values()]
    if any(texts):
        if prompt is None:
            raise ValueError("prompt is missing: only conversations may hold it in chosen and rejected")
        raise ValueError(f"prompt and {first_of(lists)} must be both text or both lists of messages")
    found = [messages_of(answer, name, left_out) for name, answer in lists.items()]
    if isinstance(prompt, str):
        prompt = prompt_before(prompt, found, first_of(lists))
    else:
        prompt = messages_of(prompt or [], "prompt", left_out)
    return [prompt, *found]


def first_of(lists: dict) -> str:
    return next(iter(lists))


def prompt_before(prompt: str, answers: list[list[Message]], name: str) -> list[Message]:
    """The messages of a prompt that is text: it is the user's, unless the answers begin with it (UltraFeedback)."""
    if all(answer and answer[0]["role"] == "assistant" for answer in answers):
        return [user(prompt)]
    if all(any(m["role"] == "user" and m["content"].strip() == prompt.strip() for m in answer) for answer in answers):
        return []
    raise ValueError(f"prompt and {name} must be both text or both lists of messages")


def split_prompt(given: Any, prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """(prompt, chosen, rejected); without a prompt it is the messages with which the two answers begin alike. Raises
    ValueError where they answer different prompts."""
    if isinstance(given, list) and chosen[:len(given)] == rejected[:len(given)] == prompt:
        chosen, rejected = chosen[len(given):], rejected[len(given):]          # which both answers had repeated
    elif isinstance(chosen, list) and not prompt and not isinstance(given, list):
        same = 0
        while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
            same += 1
        prompt, chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        roles = [message["role"] for message in answer] if isinstance(answer, list) else []
        if "assistant" in roles[1:] and roles[0] != "assistant":
            raise ValueError(f"chosen and rejected answer different prompts: {name} goes on with the {roles[0]}'s "
                             "words")
    return prompt, chosen, rejected


# ---- Anthropic's HH: transcripts ----

def is_transcript(prompt: Any, *answers: Any) -> bool:
    """Whether the answers are transcripts, or go on with one."""
    if not all(isinstance(answer, str) for answer in answers):
        return False
    if prompt is None:
        return all(TURN.match(answer.lstrip()) for answer in answers)
    return isinstance(prompt, str) and prompt.rstrip().endswith("\n\nAssistant:") and bool(TURN.match(prompt.lstrip()))


def transcript(text: str, name: str) -> list[Message]:
    """"\\n\\nHuman: ...\\n\\nAssistant: ..." as messages."""
    parts = TURN.split(text.lstrip())
    if parts[0]:
        raise ValueError(f"{name} must begin with Human: or Assistant:")
    return [{"role": ROLE_OF[who.lower()], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2])]


# ---- Alpaca ----

def given(record: dict, names: Sequence[str]) -> str | None:
    """The first of these names that the record has."""
    return next((name for name in names if name in record), None)


def text_of(record: dict, names: Sequence[str], may_be_empty: bool = False) -> str:
    """What stands under the first of these names. Raises ValueError naming what is no text, or empty."""
    name = given(record, names)
    if name is None:
        return ""
    if not isinstance(record[name], str) or not (may_be_empty or record[name].strip()):
        raise ValueError(f"{name} must be text" + " that is not empty" * (not may_be_empty))
    return record[name]


def instruction_of(record: dict) -> str:
    """The instruction, and its input on the lines below."""
    more = text_of(record, CONTEXTS, may_be_empty=True)
    return text_of(record, QUESTIONS) + (f"\n{more}" if more.strip() else "")


def history_of(record: dict) -> list[Message]:
    """Earlier questions and answers, [[question, answer], ...], as messages."""
    turns = record.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2
                                              and all(isinstance(text, str) for text in turn) for turn in turns):
        raise ValueError("history must be a list of pairs of text, question and answer")
    return [message for question, answer in turns
            for message in (user(question), {"role": "assistant", "content": answer})]


def opening(record: dict, messages: Sequence[Message] = ()) -> list[Message]:
    """The system's message that stands beside the turns, if there is one, and they have none."""
    system = text_of(record, SYSTEMS, may_be_empty=True)
    if not system.strip() or messages and messages[0]["role"] == "system":
        return []
    return [{"role": "system", "content": system}]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


# ---- messages ----

def key_of_turns(record: dict) -> str | None:
    return given(record, ("messages", "conversations", "conversation"))


def form_of(turns: Any) -> str:
    """ShareGPT's, by its keys, or OpenAI's."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return "ShareGPT" if isinstance(first, dict) and "from" in first else "conversation"


def messages_of(turns: Any, name: str, left_out: Counter) -> list[Message]:
    """Turns of OpenAI's or ShareGPT's kind as [{"role", "content"}]. Raises ValueError naming one that is neither."""
    if not isinstance(turns, list):
        raise ValueError(f"{name} must be a list of messages: got {type(turns).__name__}")
    return [message_of(turn, f"{name}[{i}]", left_out) for i, turn in enumerate(turns)]


def message_of(turn: Any, place: str, left_out: Counter) -> Message:
    turn = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    said_by = str(turn.get("role", turn.get("from", ""))).lower()
    role = ROLE_OF.get(said_by)
    if role is None:
        raise ValueError(f"{place} must have a role of {', '.join(SPEAKERS)}: got {said_by[:40]!r}")
    key = "value" if "from" in turn and "content" not in turn else "content"
    if said_by in CALLS and key in turn:
        return call_spoken(turn[key], f"{place}.{key}")
    calls = calls_of(turn, place) if role == "assistant" else []
    content = content_of(turn.get(key, "" if calls else None), f"{place}.{key}", role, left_out)
    message: Message = {"role": role, "content": content}
    if turn.get("weight") in (0, False):                           # OpenAI's: an answer that is not to be learned
        message["weight"] = 0
    return message | ({"tool_calls": calls} if calls else {})


def content_of(value: Any, place: str, role: str, left_out: Counter) -> str:
    """A text, or the texts of a list of parts; what a tool answered may be any JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) or isinstance(part, dict)
                                       and {"type", "text"} & part.keys() for part in value):
        return "".join(text_of_part(part, place, left_out) for part in value)
    if role == "tool" and value is not None:
        return json.dumps(value, ensure_ascii=False)
    raise ValueError(f"{place} must be text, or a list of parts with a type")


def text_of_part(part: str | dict, place: str, left_out: Counter) -> str:
    """The text of a part; one of another type is counted, and left out."""
    if isinstance(part, str):
        return part
    kind = str(part.get("type") or "text")
    if kind not in TEXT_PARTS:
        left_out[kind.removeprefix("input_").removesuffix("_url")[:40]] += 1
        return ""
    if not isinstance(part.get("text"), str):
        raise ValueError(f"{place}: a part of type {kind} must have a text")
    return part["text"]


def count_images(record: dict) -> int:
    """Images beside the turns, whose place in them is <image> (LLaVA)."""
    several = record.get("images")
    return sum(map(bool, [record.get("image"), *(several if isinstance(several, list) else [])]))


# ---- tools ----

def tools_of(record: dict) -> list[dict]:
    """What the model may call: a list of objects, or its JSON."""
    tools = record.get("tools") or []
    if isinstance(tools, str):
        tools = from_json(tools) if tools.strip() else []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("tools must be a list of objects, or its JSON")
    return tools


def calls_of(turn: dict, place: str) -> list[dict]:
    """A message's calls as [{"type": "function", "function": {"name", "arguments"}}], arguments an object."""
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if not isinstance(calls, list):
        raise ValueError(f"{place}.tool_calls must be a list")
    return [call_of(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)]


def call_of(call: Any, place: str) -> dict:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{place} must have a function with a name")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):                          # OpenAI's clients write "" where there are no parameters
        read = from_json(arguments or "{}")
        arguments = arguments if read is None else read
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def call_spoken(value: Any, place: str) -> Message:
    """What is said as a call: one or a list of them in JSON, else the words as they are."""
    if not isinstance(value, str):
        raise ValueError(f"{place} must be text")
    found = from_json(value)
    try:
        calls = [call_of(call, place) for call in (found if isinstance(found, list) else [found])]
    except ValueError:
        return {"role": "assistant", "content": value}
    return {"role": "assistant", "content": "", "tool_calls": calls}


def from_json(text: str) -> Any:
    """The value of a JSON text; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
