"""The prompts of a request: the texts or ids of a completion; the messages of a chat, and the tools that it may call.

All become the ids of tokens here, a chat by the model's chat template. What the template has no place for is refused,
and so is what cannot fit into the context, before it is rendered.
"""
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import END, chat_prompt, end_tokens, own_template
from ..tokenizer.jinja_template import Templates
from ..tokenizer.roles import document_start, opened
from .errors import ApiError, brief, too_long
from .tool_calls import JSON, Form, arguments_of, form_of

MAX_PROMPTS = 64
TEMPLATE = {"tools": list, "documents": list, "chat_template_kwargs": dict}      # what a chat template may read besides
MESSAGE = ("name", "tool_call_id", "reasoning_content")                         # and of a message besides its content
ROLES = ("system", "developer", "user", "assistant")


def texts(body: dict, tokenizer: Tokenizer, block_size: int) -> tuple[list[list[int]], tuple[str, ...], set[int]]:
    """The prompts of a completion: a text, a list of ids, or a list of either."""
    prompt = body.get("prompt", "")
    if isinstance(prompt, str) or (prompt and isinstance(prompt, list) and not isinstance(prompt[0], (str, list))):
        prompt = [prompt]
    if not isinstance(prompt, list) or not 1 <= len(prompt) <= MAX_PROMPTS:
        raise ApiError(400, f"prompt must be a string, a list of token ids, or a list of at most {MAX_PROMPTS} of "
                            "either.", "prompt", "invalid_type")
    return [one_prompt(text, tokenizer, block_size) for text in prompt], (), end_tokens(tokenizer)


def one_prompt(text: str | list, tokenizer: Tokenizer, block_size: int) -> list[int]:
    if isinstance(text, str):
        check_characters(len(text), tokenizer, block_size, "prompt")
        text = opened(tokenizer, tokenizer.encode_ordinary(text))
    elif not isinstance(text, list) or not all(exists(tokenizer, id) for id in text[:block_size]):
        raise ApiError(400, f"prompt must be text, or ids of tokens, from 0 to {tokenizer.vocab_size - 1}.", "prompt",
                       "invalid_value")
    return text or start(tokenizer, "prompt")


def conversation(body: dict, tokenizer: Tokenizer,
                 block_size: int) -> tuple[list[list[int]], tuple[str, ...], set[int]]:
    """The prompt of a chat in the chat template, and what ends an answer: strings and ids."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message.", "messages", "invalid_type")
    if len(messages) > block_size:              # an empty one has a token or more, too: its role
        raise too_long(f"{len(messages)} messages", block_size, "messages")
    template = own_template(tokenizer)
    roles = ROLES + ("tool",) * (template is not None or END in tokenizer.special_tokens)
    messages = [message_of(message, i, roles, template) for i, message in enumerate(messages)]
    check_characters(sum(map(characters, messages)), tokenizer, block_size, "messages")
    tools, more = beside_messages(body, ("tools",) * ("tool" in roles) if template is None else tuple(TEMPLATE))
    try:
        prompt, stop, ids = chat_prompt(tokenizer, messages, tools, more)
    except ValueError as error:                 # what the chat template refuses
        told = tools and template is not None and not template.reads_tools
        raise ApiError(400, f"{error}" + " (tools stand in a system message)" * bool(told), "messages",
                       "invalid_value") from None
    return [prompt or start(tokenizer, "messages")], stop, ids


def beside_messages(body: dict, read: Collection[str]) -> tuple[list | None, dict]:
    """(tools, documents and other variables) for the chat template; read: what it has a place for."""
    for name, kind in TEMPLATE.items():
        value = body.get(name, kind())
        if not isinstance(value, kind) or kind is list and not all(isinstance(one, dict) for one in value):
            form = "a list of objects" if kind is list else "an object"
            raise ApiError(400, f"{name} must be {form}: got {brief(value)}.", name, "invalid_type")
        if value and name not in read:
            raise ApiError(400, f"{name} is not supported: this model's chat template has no place for it.", name,
                           "unsupported_parameter")
    for tool in body.get("tools", []):
        if tool.get("type") != "function" or not isinstance(tool.get("function"), dict) or not isinstance(
                tool["function"].get("name"), str):
            raise ApiError(400, "tools must be objects of type function, with a function that has a name.", "tools",
                           "invalid_value")
    documents = {"documents": body["documents"]} if body.get("documents") else {}
    return tools_of(body), body.get("chat_template_kwargs", {}) | documents


def message_of(message: Any, i: int, roles: Collection[str], template: Templates | None) -> dict:
    """A message, checked; its parts as one text, unless the chat template reads them."""
    found: dict[str, Any] = {"role": role(message, i, roles)}
    found |= {key: message[key] for key in MESSAGE if isinstance(message.get(key), str)}
    if calls := message.get("tool_calls"):
        if "tool" not in roles:
            raise ApiError(400, f"messages[{i}].tool_calls is not supported: this model has no chat template.",
                           f"messages[{i}].tool_calls", "unsupported_parameter")
        found["tool_calls"] = tool_calls(calls, i)
    if message.get("function_call"):
        raise ApiError(400, f"messages[{i}].function_call is not supported by this server: use tool_calls.",
                       f"messages[{i}].function_call", "unsupported_parameter")
    parts = content(message, i)
    in_parts = isinstance(message.get("content"), list) and template is not None and template.reads_parts
    return found | {"content": parts if in_parts else "".join(part["text"] for part in parts)}


def characters(message: dict) -> int:
    """How many characters a message's content has."""
    content = message["content"]
    return len(content) if isinstance(content, str) else sum(len(part["text"]) for part in content)


def role(message: Any, i: int, roles: Collection[str]) -> str:
    value = message.get("role") if isinstance(message, dict) else None
    if not isinstance(value, str) or value not in roles:
        raise ApiError(400, f"messages[{i}].role must be one of {', '.join(roles)}: got {brief(value)}.",
                       f"messages[{i}].role", "invalid_value")
    return value


def content(message: dict, i: int) -> list[dict]:
    """Parts that are texts: a text is one; none where an assistant said nothing."""
    value, place = message.get("content"), f"messages[{i}].content"
    if value is None and message["role"] == "assistant":
        return []
    parts = [{"type": "text", "text": value}] if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in parts):
        raise ApiError(400, f"{place} must be a string, or a list of parts of type text.", place, "invalid_type")
    return parts


def tool_calls(calls: Any, i: int) -> list[dict]:
    """The assistant's calls as chat templates read them: with arguments as an object."""
    place, found = f"messages[{i}].tool_calls", []
    try:
        for call in calls:
            function = call["function"]
            arguments = arguments_of(function["arguments"])
            if not isinstance(function["name"], str):
                raise TypeError
            found.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}}
                         | {key: call[key] for key in ("id",) if key in call})
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ApiError(400, f"{place} must be a list of objects with function: {{name, arguments}}, the arguments an "
                            "object of JSON.", place, "invalid_type") from None
    return found


def check_characters(length: int, tokenizer: Tokenizer, block_size: int, param: str) -> None:
    """Refuse a text of `length` characters that cannot fit whatever its tokens, before it is encoded."""
    if length > block_size * longest_token(tokenizer):
        raise too_long(f"more than {block_size}", block_size, param)


@lru_cache(maxsize=8)
def longest_token(tokenizer: Tokenizer) -> int:
    """Bytes of the longest token: no token stands for more characters."""
    return max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size) if exists(tokenizer, id))


def exists(tokenizer: Tokenizer, id: object) -> bool:
    """Whether an id stands for anything: a vocabulary may have holes."""
    try:
        return type(id) is int and tokenizer.token_bytes(id) is not None
    except ValueError:
        return False


def start(tokenizer: Tokenizer, param: str) -> list[int]:
    """What an empty prompt means: the beginning of a document."""
    first = document_start(tokenizer)
    if first is None:
        raise ApiError(400, f"{param} must not be empty: this model has no <|endoftext|> to begin with.", param)
    return [first]


def tools_of(body: dict) -> list | None:
    """The tools that the model may call."""
    return body.get("tools") or None if body.get("tool_choice") != "none" else None


def forced_tools(body: dict) -> list[dict]:
    """The functions of which tool_choice asks for a call; none where the model is free."""
    choice, functions = body.get("tool_choice", "auto"), [tool["function"] for tool in body.get("tools", [])]
    if choice in ("none", "auto"):
        return []
    named = choice["function"] if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = named.get("name") if isinstance(named, dict) else None
    found = functions if choice == "required" else [function for function in functions if function["name"] == name]
    if not found:
        raise ApiError(400, 'tool_choice must be "none", "auto", and with tools "required", or {"type": "function", '
                            f'"function": {{"name": that of one of them}}}}: got {brief(choice)}.', "tool_choice",
                       "invalid_value")
    return found


def calls_of(body: dict, tokenizer: Tokenizer) -> Form | None:
    """How the answer's calls are written, if there may be any."""
    if forced_tools(body):
        return JSON
    return form_of(tokenizer) if tools_of(body) else None
