"""Tool turns as text, for a chat template that knows only the system, the user and the assistant.

    system      its text, then   <tools> a JSON line for each tool </tools>
    assistant   its text, then   <tool_call> {"name": ..., "arguments": {...}} </tool_call>   for each of its calls
    user        what the tools answered,   <tool_response> ... </tool_response>   for each answer

with a newline after every opening and before every closing tag. These are the tags of the Hermes and Qwen models, so a
model that knows those reads them as its own. The calls are the assistant's words, which are learned; the answers of
tools are not.
"""
import json
from collections.abc import Sequence
from typing import Any

# What transformers makes the same ids from as chat_template.encode_messages: our template, with tools_as_text.
JINJA = r"""
{%- if tools %}
    {%- set system = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' %}
    {{- '<|system|>' + (system + '\n\n<tools>') | trim }}
    {%- for tool in tools %}
        {{- '\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\n</tools>\nCall a tool by\n<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call><|end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message['content'] or '' %}
    {%- if message['role'] == 'tool' %}
        {{- '\n' if loop.previtem is defined and loop.previtem['role'] == 'tool' else '<|user|>' }}
        {%- set whole = content.lstrip().startswith('<tool_response>') %}
        {{- content if whole else '<tool_response>\n' + content + '\n</tool_response>' }}
        {{- '' if loop.nextitem is defined and loop.nextitem['role'] == 'tool' else '<|end|>' }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
            {{- content }}
            {%- for call in message['tool_calls'] or [] %}
                {{- ('' if loop.first and not content else '\n') + '<tool_call>\n{"name": ' }}
                {{- (call.function.name | tojson) + ', "arguments": ' + (call.function.arguments | tojson) }}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
            {{- '<|end|>' }}
        {%- endgeneration %}
    {%- elif not (tools and loop.first and message['role'] == 'system') %}
        {{- '<|' + message['role'] + '|>' + content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
""".lstrip()
HOW = 'Call a tool by\n<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'


def tools_as_text(messages: Sequence[dict[str, Any]], tools: Sequence[dict] = ()) -> list[dict[str, Any]]:
    """[{"role", "content", perhaps "tool_calls", "weight"}], of which a role may be "tool" -> the same conversation
    with the roles system, user and assistant alone, every content a text."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            answer = tagged("tool_response", message["content"])
            if turns and turns[-1].get("answers"):                       # those to several calls share a turn
                turns[-1]["content"] += "\n" + answer
            else:
                turns.append({"role": "user", "content": answer, "answers": True})
        else:
            calls = [tagged("tool_call", one_line(call["function"])) for call in message.get("tool_calls", ())]
            kept = {key: message[key] for key in ("role", "weight") if key in message}
            turns.append(kept | {"content": "\n".join([message["content"]] * bool(message["content"]) + calls)})
    return with_tools([{key: turn[key] for key in turn if key != "answers"} for turn in turns], tools)


def with_tools(turns: list[dict[str, Any]], tools: Sequence[dict]) -> list[dict[str, Any]]:
    """The turns; the system's names the tools, if there are any."""
    if not tools:
        return turns
    text = f"{tagged('tools', chr(10).join(map(json_text, tools)))}\n{HOW}"
    if turns and turns[0]["role"] == "system":
        return [turns[0] | {"content": f"{turns[0]['content']}\n\n{text}".strip()}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]


def one_line(function: dict[str, Any]) -> str:
    return json_text({"name": function["name"], "arguments": function["arguments"]})


def json_text(value: Any) -> str:
    """JSON as chat templates write it (their filter tojson)."""
    return json.dumps(value, ensure_ascii=False)


def tagged(tag: str, text: str) -> str:
    """A text between tags, unless it brings them along."""
    return text if text.lstrip().startswith(f"<{tag}>") else f"<{tag}>\n{text}\n</{tag}>"
