"""The server with a directory's own chat template: what is passed to it, what it refuses, a hostile one."""
import json

import pytest
from chat_templates import DOCUMENTS, QWEN, TOOLS
from ending import directory_that_ends
from serving import running

from minillm.models.load import load
from minillm.serve.errors import ApiError
from minillm.serve.protocol import parse
from minillm.tokenizer import chat_template as chat
from minillm.tokenizer import jinja_worker

pytest.importorskip("jinja2")
ASKED = [{"role": "user", "content": "how is Ulm?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
ECHO = ("{{ raise_exception('no ' + stop) if stop }}{% for m in messages %}{{ m | tojson }}{% endfor %}"
        "{{ tools | tojson }}{{ documents | tojson }}{{ mood }}{{ add_generation_prompt }}")


@pytest.fixture
def tokenizer_with(tmp_path):
    return lambda template: load(directory_that_ends(tmp_path, config="</s>", template=template))[1]


def prompt_of(tokenizer, **body):
    ask = parse(json.dumps({"messages": ASKED} | body).encode(), True, "m", tokenizer, 4096)
    return tokenizer.decode(ask.prompts[0])


def test_tools_documents_and_variables_reach_the_template(tokenizer_with):
    tokenizer = tokenizer_with(ECHO)
    assert prompt_of(tokenizer) == json.dumps(ASKED[0]) + "nullnullTrue"
    found = prompt_of(tokenizer, tools=TOOLS, documents=DOCUMENTS, chat_template_kwargs={"mood": "calm", "self": 1})
    assert json.dumps(TOOLS, ensure_ascii=False) + json.dumps(DOCUMENTS) + "calmTrue" in found
    assert prompt_of(tokenizer, tools=TOOLS, tool_choice="none").endswith("nullnullTrue")
    assert prompt_of(tokenizer, chat_template_kwargs={"messages": [], "add_generation_prompt": False}) == prompt_of(
        tokenizer)


def test_tool_turns_are_as_templates_read_them(tokenizer_with):
    tokenizer = tokenizer_with(QWEN)
    turns = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]},
             {"role": "tool", "tool_call_id": "c1",
              "content": [{"type": "text", "text": text} for text in ("we", "t")]}]
    text = prompt_of(tokenizer, messages=turns, tools=TOOLS)
    assert '<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call><|im_end|>' in text
    assert "<tool_response>\nwet\n</tool_response><|im_end|>\n<|im_start|>assistant\n" in text


def test_a_call_without_parameters_may_have_no_arguments(tokenizer_with):
    """OpenAI's clients send "" for it."""
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": ""}}
    text = prompt_of(tokenizer_with(QWEN), messages=[*ASKED, {"role": "assistant", "tool_calls": [call]}], tools=TOOLS)
    assert '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>' in text


@pytest.mark.parametrize("body, param", [
    ({"tools": [{"type": "x"}]}, "tools"), ({"tools": {}}, "tools"), ({"documents": ["x"]}, "documents"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"), ({"chat_template_kwargs": {"stop": "!"}}, "messages"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     "messages[0].tool_calls"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"), ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice")])
def test_bad_ones_name_the_parameter(tokenizer_with, body, param):
    with pytest.raises(ApiError) as error:
        prompt_of(tokenizer_with(ECHO), **body)
    assert (error.value.status, error.value.param) == (400, param)


def test_ours_takes_tools_as_text_and_has_no_place_for_documents(tokenizer_with):
    tokenizer = tokenizer_with(None).with_special_tokens(chat.MARKS)
    assert "<tools>" in prompt_of(tokenizer, tools=TOOLS)
    with pytest.raises(ApiError) as error:
        prompt_of(tokenizer, documents=DOCUMENTS)
    assert error.value.param == "documents"


@pytest.mark.parametrize("template", ["{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                                      "{{ ('x' * 99999999999) | length }}"])
def test_a_hostile_template_is_an_error_of_400_and_the_server_lives(tmp_path, monkeypatch, template):
    monkeypatch.setattr(jinja_worker, "SECONDS", 0.2)
    model, tokenizer = load(directory_that_ends(tmp_path, config="</s>", template=template))
    with running(model, tokenizer) as server:
        answer = server.client.post("/v1/chat/completions", json={"messages": ASKED})
        assert answer.status_code == 400 and "the chat template cannot be rendered" in answer.json()["error"]["message"]
        whole = server.client.post("/v1/completions", json={"prompt": "the cat", "temperature": 0}).json()
        assert whole["choices"][0]["finish_reason"] == "stop"
