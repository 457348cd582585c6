"""The forms in which people keep conversations and preferences: each becomes what TRL's form would have been."""
import pytest
from chats import CHAT, talk, write

from minillm.data.sources.chat_formats import answered, pair_of
from minillm.data.sources.conversations import read_examples, read_preferences

HH = "\n\nHuman: what is a hen?\n\nAssistant: a bird\n\nHuman: says?\n\nAssistant: "
SAYS = [*talk(), *talk("says?", "cluck")]


def said(record):
    """The messages of a record, as (role, content)."""
    found = answered(record)
    return [(m["role"], m["content"]) for m in found.prompt + found.answer]


SHAREGPT = {"conversations": [{"from": "human", "value": "what is a hen?"}, {"from": "gpt", "value": "a bird"}]}
ALPACA = {"instruction": "what is a hen?", "input": "", "output": "a bird"}


@pytest.mark.parametrize("record, form", [
    ({"messages": talk()}, "conversation"), (SHAREGPT, "ShareGPT conversation"),
    ({"conversation": [{"from": "User", "value": "what is a hen?"}, {"from": "ChatGPT", "value": "a bird"}]},
     "ShareGPT conversation"),
    ({"conversations": talk(), "id": 7}, "conversation"), (ALPACA, "Alpaca instruction"),
    ({"question": "what is a hen?", "response": "a bird"}, "Alpaca instruction"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "what is "}, {"text": "a hen?"}]},
                   {"role": "assistant", "content": ["a bird"]}]}, "conversation"),
    ({"prompt": talk()[:1], "completion": talk()[1:]}, "prompt/completion record"),
    ({"prompt": talk()[:1], "completion": talk()}, "prompt/completion record"),
    ({"prompt": talk()[:1], "completion": talk()[1]}, "prompt/completion record"),
    ({"messages": talk(), "tools": None, "chosen": "x", "rejected": "y"}, "conversation"),
    ({"chosen": HH.partition("\n\nHuman: says")[0], "rejected": "\n\nHuman: what is a hen?\n\nAssistant: no"},
     "HH pair"),
], ids=str)
def test_every_form_is_the_same_conversation(record, form):
    assert said(record) == [("user", "what is a hen?"), ("assistant", "a bird")]
    assert answered(record).form == form


@pytest.mark.parametrize("record, before", [
    (ALPACA | {"system": "be brief"}, [("system", "be brief")]),
    (SHAREGPT | {"system": "be brief"}, [("system", "be brief")]),
    (ALPACA | {"history": [["hen?", "cluck"]]}, [("user", "hen?"), ("assistant", "cluck")]),
    (ALPACA | {"history": None, "system": " "}, [])], ids=str)
def test_what_stands_before(record, before):
    assert said(record) == before + [("user", "what is a hen?"), ("assistant", "a bird")]


def test_an_input_stands_below_its_instruction():
    assert said(ALPACA | {"input": "a or b"})[0] == ("user", "what is a hen?\na or b")


def test_arguments_are_an_object_also_where_there_are_none():
    calls = [{"function": {"name": "now", "arguments": arguments}} for arguments in ("", "{}", {}, '{"a": 1}', "a")]
    turn = answered({"messages": [talk()[0], {"role": "assistant", "tool_calls": calls}]}).answer[-1]
    assert [call["function"]["arguments"] for call in turn["tool_calls"]] == [{}, {}, {}, {"a": 1}, "a"]


def test_what_is_no_text_is_counted_and_left_out():
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "what is a hen?"},
             {"type": "input_audio", "input_audio": {}}]
    record = {"messages": [{"role": "user", "content": parts}, talk()[1]]}
    assert said(record) == said({"messages": talk()}) and answered(record).left_out == {"image": 1, "audio": 1}
    llava = {"image": "hen.png", "conversations": [{"from": "human", "value": "<image>\nwhat is a hen?"},
                                                   {"from": "gpt", "value": "a bird"}]}
    assert said(llava) == said(SHAREGPT) and answered(llava).left_out == {"image": 1}


PAIR = (talk()[:1], [talk()[1]], [talk(answer="a fish")[1]])


@pytest.mark.parametrize("record, form", [
    ({"prompt": PAIR[0], "chosen": PAIR[1], "rejected": PAIR[2]}, "pair"),
    ({"prompt": PAIR[0], "chosen": "a bird", "rejected": "a fish"}, "pair"),
    ({"prompt": "what is a hen?", "chosen": PAIR[1], "rejected": PAIR[2]}, "pair"),
    ({"chosen": talk(), "rejected": talk(answer="a fish")}, "pair"),
    ({"prompt": "what is a hen?", "chosen": talk(), "rejected": talk(answer="a fish"), "score_chosen": 8.0}, "pair"),
    ({"conversations": SHAREGPT["conversations"][:1], "chosen": SHAREGPT["conversations"][1],
      "rejected": {"from": "gpt", "value": "a fish"}}, "ShareGPT pair"),
    ({"instruction": "what is a hen?", "completions": [
        {"response": text, "overall_score": score} for text, score in (("so", 5.0), ("a bird", 8.5), ("a fish", 2))]},
     "Alpaca pair"),
    ({"input": {"messages": talk()[:1], "tools": []}, "preferred_output": PAIR[1], "non_preferred_output": PAIR[2]},
     "pair"),
    ({"instruction": "what is a hen?", "input": "", "chosen": "a bird", "rejected": "a fish"}, "Alpaca pair"),
    ({"question": "what is a hen?", "system": "", "chosen": "a bird", "rejected": "a fish"}, "Alpaca pair"),
    ({"chosen": "\n\nHuman: what is a hen?\n\nAssistant: a bird", "rejected":
      "\n\nHuman: what is a hen?\n\nAssistant: a fish"}, "HH pair"),
    ({"prompt": "\n\nHuman: what is a hen?\n\nAssistant:", "chosen": " a bird", "rejected": " a fish"}, "HH pair"),
    ({"prompt": talk()[:1], "chosen": talk(), "rejected": talk(answer="a fish")}, "pair"),    # the question only once
], ids=str)
def test_every_form_of_a_pair_is_the_same(record, form):
    assert pair_of(record)[:4] == (form, *PAIR)
    assert answered(record).answer == PAIR[1]                              # sft learns what was chosen


def test_transcripts_share_their_turns_up_to_the_last_answer():
    found = pair_of({"chosen": HH + "cluck", "rejected": HH + "moo\nHuman: or\n\nbaa"})
    assert (found.prompt, found.chosen) == (SAYS[:3], SAYS[3:])
    assert found.rejected == [{"role": "assistant", "content": "moo\nHuman: or\n\nbaa"}]       # a turn needs both
    longer = pair_of({"chosen": HH[:HH.index("\n\nHuman: says")], "rejected": HH + "cluck"})
    assert (longer.prompt, longer.chosen, longer.rejected) == (SAYS[:1], SAYS[1:2], SAYS[1:])
    silent = pair_of({"chosen": HH + "cluck", "rejected": HH})
    assert silent.rejected == [{"role": "assistant", "content": ""}]                   # there are such in HH


def test_plain_text_stays_plain():
    assert pair_of({"prompt": "2+2=", "chosen": "4", "rejected": "5"})[:4] == ("pair", "2+2=", "4", "5")
    assert answered({"prompt": "2+2=", "completion": "4"})[:3] == ("prompt/completion record", "2+2=", "4")


@pytest.mark.parametrize("record, words", [
    ({}, "got the keys none"), ({"text": "x"}, "got the keys text"), ({"conversations": 3}, "must be a list"),
    ({"conversations": [{"from": "robot", "value": "x"}]}, r"conversations\[0\] must have a role"),
    ({"conversations": [{"from": "human", "value": "x"}]}, "nothing to learn"),
    ({"conversations": [{"from": "gpt", "value": ""}]}, "nothing to learn"),
    ({"messages": [{"role": "user", "content": {"a": 1}}]}, r"messages\[0\].content must be text, or a list of parts"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "a part of type text must have a text"),
    ({"messages": [None]}, r"messages\[0\]"), (ALPACA | {"output": ""}, "output must be text that is not empty"),
    (ALPACA | {"input": 3}, "input must be text"), (ALPACA | {"history": [["a"]]}, "history must be"),
    ({"messages": talk(), "tools": "{"}, "tools must be"),
    ({"messages": [{"role": "assistant", "tool_calls": 3}]}, "must be a list"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "a function with a name")], ids=str)
def test_what_fits_no_form_says_why(record, words):
    with pytest.raises(ValueError, match=words):
        answered(record)


@pytest.mark.parametrize("record, words", [
    ({"prompt": "x", "chosen": "a"}, "expected prompt, chosen and rejected"),
    ({"prompt": "x", "chosen": "a", "rejected": "a"}, "equal"), ({"chosen": "a", "rejected": "b"}, "prompt is missing"),
    ({"prompt": "x", "chosen": talk(), "rejected": talk(answer="b")}, "both text or both lists"),
    ({"prompt": "x", "chosen": "a", "rejected": talk()}, "both text or both lists"),
    ({"instruction": "x", "completions": [{"response": "a", "overall_score": 3}] * 2}, "one overall_score"),
    ({"chosen": talk(), "rejected": talk("what is a cow?")}, "answer different prompts: chosen goes on with the user"),
    ({"chosen": HH + "cluck", "rejected": "\n\nHuman: and a cow?\n\nAssistant: moo"}, "answer different prompts"),
    ({"prompt": 3, "chosen": "a", "rejected": "b"}, "both text or both lists")], ids=str)
def test_what_is_no_pair_says_why(record, words):
    with pytest.raises(ValueError, match=words):
        pair_of(record)


def test_a_file_of_all_forms_is_told_in_a_line(tmp_path):
    bad = {"conversations": [{"from": "robot", "value": "x"}]}
    image = {"messages": [{"role": "user", "content": [{"type": "image"}]}, talk()[1]]}
    told = []
    path = write(tmp_path / "a.jsonl", [SHAREGPT] * 3 + [ALPACA, bad, image, ALPACA | {"output": ""}])
    examples = read_examples(path, CHAT, told.append)
    assert len(examples) == 5 and examples[0] == examples[3]                # ShareGPT and Alpaca: the same tokens
    assert told[0] == ("read        3 ShareGPT conversations, 1 Alpaca instruction, 1 conversation; "
                       "left out, for only text is read: 1 image")
    assert told[1] == (f"skipped     2 of 7 records:\n{path}:5: conversations[0] must have a role of system, user, "
                       f"assistant, tool: got 'robot'\n{path}:7: output must be text that is not empty")


def test_one_bad_pair_is_skipped_and_none_usable_is_an_error(tmp_path):
    pairs, told = [{"chosen": HH + word, "rejected": HH + "no"} for word in ("cluck", "no", "bird")], []
    first, second = read_preferences(write(tmp_path / "p.jsonl", pairs), CHAT, told.append)
    assert told[0] == "read        2 HH pairs" and told[1].endswith("p.jsonl:2: chosen and rejected are equal")
    learned = [CHAT.decode([i for i, wanted in zip(e.ids, e.learned) if wanted]) for e in (*first, *second)]
    assert learned == ["cluck<|end|>", "no<|end|>", "bird<|end|>", "no<|end|>"]          # the prompt's answers are not
    with pytest.raises(ValueError, match="none of its 1 record.s. can be used\n.*p.jsonl:1: chosen and rejected"):
        read_preferences(write(tmp_path / "p.jsonl", pairs[1:2]), CHAT)
