"""What is fine-tuned from a directory with a chat template of its own names the end that the template writes."""
import json

import pytest
from chats import talk, write
from ending import CHATML, directory_that_ends, said_after

from minillm.__main__ import main
from minillm.models.load import load
from minillm.tokenizer import chat_template as chat

pytest.importorskip("jinja2")
KEPT = "--set train.steps=1 --set train.lr=1e-9 --set train.min_lr=0 --set train.eval_every=1"     # it says what it said
MADE = ("sft", "sft/last", "lora", "dpo", "draft", "int8", "shards")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs from a base whose files name another end than its template writes."""
    folder = tmp_path_factory.mktemp("exports")
    directory_that_ends(folder / "base", "<|im_end|>", "</s>", roles={"bos_token": "<s>", "eos_token": "</s>"},
                        template=CHATML)
    chats = write(folder / "chats.jsonl", [{"messages": talk(f"cat {i}", "abc")} for i in range(6)])
    pairs = write(folder / "pairs.jsonl", [{"prompt": talk(f"cat {i}")[:1], "chosen": talk()[1:],
                                            "rejected": talk(answer="no")[1:]} for i in range(6)])
    texts = write(folder / "texts.jsonl", [{"text": f"the cat {i} sat on the mat. " * 9} for i in range(9)])
    for command in (f"sft {folder}/base --data {chats} --out {folder}/sft {KEPT}",
                    f"sft {folder}/base --data {chats} --out {folder}/lora --lora-rank 1 {KEPT}",
                    f"dpo {folder}/sft --data {pairs} --out {folder}/dpo {KEPT}",
                    f"distill {folder}/sft --data {texts} --out {folder}/draft --steps=1 --layers=1 --width=8",
                    f"quantize {folder}/sft -o {folder}/int8 --data {texts}",
                    f"data tokenize {texts} --tokenizer {folder}/sft -o {folder}/shards"):
        assert main(command.split()) == 0, command
    return folder


@pytest.mark.parametrize("made", MADE)
def test_the_files_name_the_end_and_keep_the_template(runs, made):
    said = json.loads((runs / made / "tokenizer_config.json").read_text())
    assert (said["eos_token"], said["bos_token"], said["chat_template"]) == ("<|im_end|>", "<s>", CHATML)
    if made != "shards":
        _, tokenizer = load(runs / made)
        ids, config = tokenizer.special_tokens, json.loads((runs / made / "config.json").read_text())
        assert (config["eos_token_id"], config["bos_token_id"]) == (ids["<|im_end|>"], ids["<s>"])
        assert tokenizer.ends == {ids["<|im_end|>"], ids["</s>"], ids["<|endoftext|>"]}
        assert chat.learned_ends(tokenizer).eos[0] == ids["<|im_end|>"]
        assert not set(chat.MARKS) & ids.keys()


@pytest.mark.parametrize("made", ["sft", "lora", "dpo"])
def test_transformers_renders_and_stops(runs, made):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(runs / made)
    model = transformers.AutoModelForCausalLM.from_pretrained(runs / made)
    ids = tokenizer.apply_chat_template(talk("cat")[:1], add_generation_prompt=True, return_tensors="pt",
                                        return_dict=False)
    ours = load(runs / made)[1]
    assert ids[0].tolist() == chat.encode_prompt(ours, talk("cat")[:1])
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(found[0, ids.shape[1]:]) == said_after(ids.shape[1]) + "<|im_end|>"
    assert tokenizer.eos_token == "<|im_end|>"
