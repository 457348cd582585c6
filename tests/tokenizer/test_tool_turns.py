"""Conversations with tools, as text between the marks we have; the loss is on the assistant's turns alone."""
import json

import pytest
from chats import CHAT, write

from minillm.data.sources.conversations import read_examples
from minillm.tokenizer.chat_template import save_tokenizer
from minillm.tokenizer.tool_turns import HOW, tools_as_text

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
SPOKEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
OPENAI = {"tools": [TOOL], "messages": [
    {"role": "user", "content": "1+2?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "x", "type": "function", "function": {"name": "add", "arguments": json.dumps(CALL["arguments"])}}]},
    {"role": "tool", "tool_call_id": "x", "content": "3"}, {"role": "assistant", "content": "it is 3"}]}
SHAREGPT = {"tools": json.dumps([TOOL]), "conversations": [
    {"from": "human", "value": "1+2?"}, {"from": "function_call", "value": json.dumps(CALL)},
    {"from": "observation", "value": "3"}, {"from": "gpt", "value": "it is 3"}]}
OLD = {"tools": [TOOL], "messages": [
    {"role": "user", "content": "1+2?"}, {"role": "assistant", "content": "", "function_call": CALL},
    {"role": "function", "name": "add", "content": 3}, {"role": "assistant", "content": "it is 3"}]}
HERMES = {"tools": [TOOL], "conversations": [
    {"from": "human", "value": "1+2?"}, {"from": "gpt", "value": SPOKEN},
    {"from": "tool", "value": "<tool_response>\n3\n</tool_response>"}, {"from": "gpt", "value": "it is 3"}]}


@pytest.mark.parametrize("record", [OPENAI, SHAREGPT, OLD, HERMES], ids=["OpenAI", "ShareGPT", "old", "Hermes"])
def test_the_documented_form_and_its_loss(tmp_path, record):
    (example,) = read_examples(write(tmp_path / "a.jsonl", [record]), CHAT)
    system = f"<|system|><tools>\n{json.dumps(TOOL)}\n</tools>\n{HOW}<|end|>"
    assert CHAT.decode(example.ids) == (f"{system}<|user|>1+2?<|end|><|assistant|>{SPOKEN}<|end|><|user|>"
                                        "<tool_response>\n3\n</tool_response><|end|><|assistant|>it is 3<|end|>")
    learned = CHAT.decode([i for i, wanted in zip(example.ids, example.learned) if wanted])
    assert learned == f"{SPOKEN}<|end|>it is 3<|end|>"


def test_answers_to_several_calls_share_a_turn_and_words_stand_before_a_call():
    calls = [{"function": CALL}, {"function": CALL | {"name": "sub"}}]
    turns = tools_as_text([{"role": "system", "content": "be brief"},
                           {"role": "assistant", "content": "so", "weight": 0, "tool_calls": calls},
                           {"role": "tool", "content": "3"}, {"role": "tool", "content": "-1"},
                           {"role": "user", "content": "and?"}], [TOOL])
    assert [turn["role"] for turn in turns] == ["system", "assistant", "user", "user"]
    assert turns[0]["content"].startswith("be brief\n\n<tools>\n")
    assert turns[1] == {"role": "assistant", "weight": 0,
                        "content": f"so\n{SPOKEN}\n" + SPOKEN.replace('"add"', '"sub"')}
    assert turns[2]["content"] == "<tool_response>\n3\n</tool_response>\n<tool_response>\n-1\n</tool_response>"
    assert turns[3] == {"role": "user", "content": "and?"}


def test_an_answer_of_weight_0_is_read_and_not_learned(tmp_path):
    turns = [{"role": "user", "content": "hen?"}, {"role": "assistant", "content": "cow", "weight": 0},
             {"role": "user", "content": "hen?"}, {"role": "assistant", "content": "bird", "weight": 1}]
    (example,) = read_examples(write(tmp_path / "a.jsonl", [{"messages": turns}]), CHAT)
    assert CHAT.decode([i for i, wanted in zip(example.ids, example.learned) if wanted]) == "bird<|end|>"
    assert "cow" in CHAT.decode(example.ids)


def test_a_call_that_is_no_json_is_what_was_said(tmp_path):
    said = [{"from": "human", "value": "hen?"}, {"from": "function_call", "value": "add(1, 2)"}]
    (example,) = read_examples(write(tmp_path / "a.jsonl", [{"conversations": said}]), CHAT)
    assert CHAT.decode(example.ids).endswith("<|assistant|>add(1, 2)<|end|>")


MANY = {"tools": [TOOL, TOOL], "messages": [
    {"role": "system", "content": " be brief"}, {"role": "user", "content": "1+2? <tools>"},
    {"role": "assistant", "content": "so", "tool_calls": [{"function": CALL}, {"function": CALL}]},
    {"role": "tool", "content": "3"}, {"role": "tool", "content": "\u00fc"},
    {"role": "assistant", "content": "it is 3"},
    {"role": "system", "content": "be long"}, {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"\u00fc": "<&'"}}}]}]}


@pytest.mark.parametrize("record", [OPENAI | {"messages": [*OPENAI["messages"][:1], {
    "role": "assistant", "content": None, "tool_calls": [{"function": CALL}]}, *OPENAI["messages"][2:]]}, MANY,
    {"messages": MANY["messages"]}, {"messages": MANY["messages"][1:], "tools": [TOOL]}], ids=["one", "many", "", "no"])
def test_transformers_makes_the_same_ids_and_masks(tmp_path, record):
    transformers = pytest.importorskip("transformers")
    (example,) = read_examples(write(tmp_path / "a.jsonl", [record]), CHAT)
    save_tokenizer(CHAT, tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    found = theirs.apply_chat_template(record["messages"], tools=record.get("tools"), return_dict=True,
                                       return_assistant_tokens_mask=True)
    assert found["input_ids"] == example.ids
    assert found["assistant_masks"] == list(map(int, example.learned))
