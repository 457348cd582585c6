"""Tool calls in answers: each known form, whole and in any pieces, over HTTP and by the openai client; else text."""
import json
import re

import ending
import pytest
from chat_templates import GEMMA, LLAMA3, QWEN, TOOLS
from ending import directory_that_ends
from serving import running

from minillm.models.load import load
from minillm.serve.protocol import parse
from minillm.serve.tool_calls import HERMES, LLAMA, MISTRAL, CallReader, form_of

ASKED = [{"role": "user", "content": "how is Ulm?"}]
ULM, FREE = ("weather", {"town": "Ülm"}), ("f.g-2", {})
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Ülm"}}\n</tool_call>'
LLAMA_CALL = '{"name": "weather", "parameters": {"town": "Ülm"}}'
MISTRAL_CALL = '[TOOL_CALLS] [{"name": "weather", "arguments": {"town": "Ülm"}, "id": "abcDEF123"}]'
READ = [        # form, what the model says, what is text, which calls
    (HERMES, HERMES_CALL, "", [ULM]), (HERMES, f"I look.\n\n{HERMES_CALL}\n", "I look.", [ULM]),
    (HERMES, f"a < b {HERMES_CALL}\n{HERMES_CALL} so", "a < bso", [ULM, ULM]),
    (HERMES, '<tool_call>{"name": "f.g-2", "arguments": "{}"}', "", [FREE]),            # it stopped before the tag
    (HERMES, '<tool_call>{"name": "f.g-2", "arguments": ""}</tool_call>', "", [FREE]),
    (LLAMA, LLAMA_CALL, "", [ULM]), (LLAMA, f" <|python_tag|>{LLAMA_CALL}; {LLAMA_CALL}\n", "", [ULM, ULM]),
    (MISTRAL, MISTRAL_CALL, "", [ULM]), (MISTRAL, f"So: {MISTRAL_CALL}", "So:", [ULM]),
    (MISTRAL, '[TOOL_CALLS]weather{"town": "Ülm"}[TOOL_CALLS]f.g-2[ARGS]{}', "", [ULM, FREE])]
TEXTS = [(form, text) for form, texts in {
    HERMES: [" <tool_call>{}</tool_call> ", "<tool_call>[1]</tool_call>", "<tool_call>nothing", "a <tool", "{}", " ",
             '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
             '<tool_call>{"name": 3, "arguments": {}}</tool_call>', '<tool_call>{"name": "f"}</tool_call> x'],
    LLAMA: ["It is wet. " + LLAMA_CALL, '{"name": "f"}', '{"name": "f", "parameters": {}} x', "<|python", "{",
            '{"name": "f", "parameters": [1]}', "<|python_tag|>brave_search.call(query='x')", '{"a": 1}'],
    MISTRAL: ["[TOOL_CALLS] it", "[TOOL_CALLS] [1]", '[TOOL_CALLS]f{"a": }', '[TOOL_CALLS]f{"a": 1e999}', "[TOOL",
              '[{"name": "f"}]']}.items()
    for text in texts]


def read(form, pieces):
    reader = CallReader(form)
    found = [reader.push(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    calls = [call for _, calls in found for call in calls]
    assert reader.n_calls == len(calls) and all(re.fullmatch("[A-Za-z0-9]{9}", call["id"]) for call in calls)
    return "".join(text for text, _ in found), [named(call["function"]) for call in calls]


def named(function):
    return function["name"], json.loads(function["arguments"])


def pieces_of(text):
    """The text whole, cut in two at each place, and one character at a time."""
    yield from ([text[:cut], text[cut:]] for cut in range(len(text) + 1))
    yield [*text]


@pytest.mark.parametrize("form, text, rest, calls", READ)
def test_calls_in_any_pieces(form, text, rest, calls):
    assert all(read(form, pieces) == (rest, calls) for pieces in pieces_of(text))


@pytest.mark.parametrize("form, text", TEXTS)
def test_what_is_no_call_stays_text(form, text):
    assert all(read(form, pieces) == (text, []) for pieces in pieces_of(text))


@pytest.mark.parametrize("form, text", [(HERMES, f"a {HERMES_CALL}\n{HERMES_CALL} so"),
                                        (LLAMA, f"{LLAMA_CALL};{LLAMA_CALL}")])
def test_one_call_and_no_more_where_that_is_asked_for(form, text):
    for pieces in pieces_of(text):
        reader = CallReader(form, only_one=True)
        found = [reader.push(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
        assert "".join(text for text, _ in found) == "a" * (form is HERMES)
        assert [named(call["function"]) for _, calls in found for call in calls] == [ULM] and reader.n_calls == 1


def test_text_goes_out_before_a_call_begins():
    reader = CallReader(HERMES)
    assert reader.push("I look. <to", False) == ("I look.", []) and reader.push("y>", False) == (" <toy>", [])
    reader = CallReader(LLAMA)
    assert reader.push("{", False) == ("", []) and CallReader(LLAMA).push("It", False) == ("It", [])


def saying(folder, text, template):
    """A model that answers ASKED with this text and its end token; and its tokenizer."""
    model, tokenizer = load(directory_that_ends(folder, config="</s>", template=template, block_size=800))
    body = json.dumps({"messages": ASKED, "tools": TOOLS}).encode()
    (prompt,) = parse(body, True, "tiny", tokenizer, 800).prompts
    said = [*tokenizer.encode(text, "all"), tokenizer.special_tokens["</s>"]]
    places = slice(len(prompt) - 1, len(prompt) - 1 + len(said))
    model.params["wpe.weight"][places] = 30 * model.params["wte.weight"][said]
    return model, tokenizer


@pytest.mark.parametrize("template, text, content", [
    (QWEN, f"I look.\n{HERMES_CALL}", "I look."), (LLAMA3, LLAMA_CALL, None), (QWEN, "<tool_call>{</tool_call>", ...)])
def test_over_http_whole_and_streamed(tmp_path, template, text, content):
    pytest.importorskip("jinja2")
    model, tokenizer = saying(tmp_path, text, template)
    with running(model, tokenizer) as server:
        def ask(**more):
            return server.client.post("/v1/chat/completions", json={"messages": ASKED, "temperature": 0} | more)
        (choice,) = ask(tools=TOOLS).json()["choices"]
        lines = ask(tools=TOOLS, stream=True).text.splitlines()
        chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
        (without,) = ask(tools=TOOLS, tool_choice="none", max_tokens=4).json()["choices"]
    streamed = "".join(chunk["delta"].get("content") or "" for chunk in chunks)
    deltas = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    assert "tool_calls" not in without["message"]
    if content is ...:
        assert choice["message"]["content"] == streamed == text and not deltas
        assert choice["finish_reason"] == chunks[-1]["finish_reason"] == "stop"
        return
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] == content and streamed == (content or "")
    assert named(call["function"]) == ULM and call["type"] == "function"
    assert [(delta["index"], named(delta["function"])) for delta in deltas] == [(0, ULM)]
    assert choice["finish_reason"] == chunks[-1]["finish_reason"] == "tool_calls"


def test_marks_that_are_special_tokens_are_seen(tmp_path, monkeypatch):
    """Special tokens are no part of an answer's text; those of calls are, where there are tools."""
    pytest.importorskip("jinja2")
    monkeypatch.setattr(ending, "SPECIALS", [*ending.SPECIALS, "[TOOL_CALLS]"])
    template = "{{ messages[0].content }}{% if tools %}{{ '' if true else '[TOOL_CALLS]' }} {% endif %}"
    model, tokenizer = saying(tmp_path, "So: " + MISTRAL_CALL, template)
    assert "[TOOL_CALLS]" in tokenizer.special_tokens
    with running(model, tokenizer) as server:
        body = {"messages": ASKED, "temperature": 0}
        (choice,) = server.client.post("/v1/chat/completions", json=body | {"tools": TOOLS}).json()["choices"]
        body |= {"messages": [{"role": "user", "content": ASKED[0]["content"] + " "}]}
        (plain,) = server.client.post("/v1/chat/completions", json=body).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert named(call["function"]) == ULM and call["id"] == "abcDEF123" and choice["message"]["content"] == "So:"
    assert plain["message"]["content"] == 'So:  [{' + MISTRAL_CALL.partition("{")[2]


@pytest.mark.parametrize("choice, names", [("required", {"add", "negate"}), (
    {"type": "function", "function": {"name": "negate"}}, {"negate"})], ids=["any", "one"])
def test_a_call_that_is_asked_for_is_written(tmp_path, choice, names):
    """By a model that never learned any, whole and streamed: its arguments follow the tool's schema."""
    pytest.importorskip("jinja2")
    pytest.importorskip("llguidance")
    digit = {"type": "object", "properties": {"a": {"enum": [*range(10)]}}, "required": ["a"],
             "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": name, "parameters": digit}} for name in ("add", "negate")]
    with running(*load(directory_that_ends(tmp_path, config="</s>", template=QWEN, block_size=800))) as server:
        def ask(seed, **more):
            body = {"messages": ASKED, "tools": tools, "tool_choice": choice, "seed": seed, "max_tokens": 99}
            return server.client.post("/v1/chat/completions", json=body | more)
        for seed in range(3):
            (found,) = ask(seed).json()["choices"]
            (call,) = found["message"]["tool_calls"]
            name, arguments = named(call["function"])
            assert name in names and [*arguments] == ["a"] and arguments["a"] in range(10)
            assert found["message"]["content"] is None and found["finish_reason"] == "tool_calls"
        lines = ask(2, stream=True).text.splitlines()
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines if line.startswith("data: {")]
    assert [named(call["function"]) for delta in deltas for call in delta.get("tool_calls", [])] == [(name, arguments)]
    assert not any(delta.get("content") for delta in deltas)


@pytest.mark.parametrize("template, form", [
    (QWEN, HERMES), (LLAMA3, LLAMA), ("{{ tools }}[TOOL_CALLS]", MISTRAL), ("{{ messages }}", HERMES),
    ("{{ tools }}", None), (None, HERMES)])
def test_the_form_is_that_of_the_template(tmp_path, template, form):
    _, tokenizer = load(directory_that_ends(tmp_path, config="</s>", template=template))
    assert form_of(tokenizer) is form


def test_gemma_s_word_on_system_messages_is_an_error_of_400(tmp_path):
    pytest.importorskip("jinja2")
    model, tokenizer = load(directory_that_ends(tmp_path, config="</s>", template=GEMMA, block_size=200))
    with running(model, tokenizer) as server:
        turns = [{"role": "system", "content": "Be brief."}, *ASKED]
        answer = server.client.post("/v1/chat/completions", json={"messages": turns})
        assert answer.status_code == 400 and "there is no system role" in answer.json()["error"]["message"]
        answer = server.client.post("/v1/chat/completions", json={"messages": ASKED, "tools": TOOLS})
        assert answer.status_code == 400 and "(tools stand in a system message)" in answer.json()["error"]["message"]
        assert server.client.post("/v1/chat/completions", json={"messages": ASKED, "max_tokens": 4}).status_code == 200
