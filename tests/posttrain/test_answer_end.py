"""One end of an answer: what fine-tuning teaches, what the files say, where generation stops, ours and others'."""
import json

import numpy as np
import pytest
from chats import CHAT, SMALL, TOK, small_model, write

from minillm.__main__ import main
from minillm.generation.sampling import Sampling
from minillm.generation.text import generate_text, load_generator, text_of
from minillm.models.load import load
from minillm.posttrain.grpo import RewardData
from minillm.posttrain.tasks import TASKS

END = CHAT.special_tokens["<|end|>"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that has learned one answer by prompt and completion; its base knew no marks."""
    folder = tmp_path_factory.mktemp("ends")
    small_model(TOK, np.float32).save_pretrained(folder / "base")
    TOK.save(folder / "base")
    data = write(folder / "sums.jsonl", [{"prompt": f"{i}+2=", "completion": "4"} for i in range(8)])
    learn = "--set train.steps=120 --set train.lr=3e-2 --set train.warmup=1 --set train.eval_every=60"
    assert main(f"sft {folder}/base --data {data} --out {folder}/sft {learn}".split()) == 0
    assert main(f"grpo {folder}/sft --out {folder}/grpo --prompts 1 --group 2 -n 2 --set train.steps=1".split()) == 0
    return folder


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_every_file_of_a_run_names_the_end_that_was_learned(run, stage):
    config, tokenizer = (json.loads((run / stage / name).read_text()) for name in ("config.json",
                                                                                   "tokenizer_config.json"))
    assert config["eos_token_id"] == CHAT.special_tokens[tokenizer["eos_token"]] == END


def test_ours_stops_there_and_shows_no_special_token(run):
    sample = generate_text(load_generator(run / "sft"), "2+2=", 8, Sampling(temperature=0))
    assert (sample["text"], sample["finish"], len(sample["tokens"])) == ("4", "stop", 1)
    marks = [CHAT.special_tokens["<|user|>"], *CHAT.encode("a hen"), END, *CHAT.encode("never said")]
    assert text_of(marks, CHAT) == "a hen"


def test_rewards_are_for_the_text_before_the_end(run):
    _, tokenizer = load(run / "sft")
    problems = RewardData(TASKS["addition"], tokenizer, 1, 2, 4)
    assert problems.stop == END and problems.reward(75, [*tokenizer.encode("12"), END]) == 1


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_transformers_stops_there(run, stage):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(run / stage)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / stage)
    assert tokenizer.eos_token_id == END
    ids = tokenizer("2+2=", return_tensors="pt").input_ids
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert found[0, ids.shape[1]:].tolist() == [*CHAT.encode("4"), END]


def test_pretraining_with_marks_and_a_chat_models_draft_name_the_same_end(run, tmp_path):
    texts = [f"hen {i} says cluck. " * 9 for i in range(12)]
    write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    shape = [f"--set={name}={value}" for name, value in SMALL.items()] + ["--set=steps=1", "--set=batch_size=1"]
    assert main(["data", "tokenize", f"{tmp_path}/texts.jsonl", "--tokenizer", f"{run}/sft", "-o",
                 f"{tmp_path}/shards"]) == 0
    assert main(["train", "--data", f"{tmp_path}/shards", "--out", f"{tmp_path}/run", *shape]) == 0
    assert main(["distill", f"{run}/sft", "--data", f"{tmp_path}/texts.jsonl", "--out", f"{tmp_path}/draft",
                 "--steps=1", "--layers=1", "--width=8"]) == 0
    for made in ("run", "draft"):
        assert json.loads((tmp_path / made / "config.json").read_text())["eos_token_id"] == END, made
        assert json.loads((tmp_path / made / "tokenizer_config.json").read_text())["eos_token"] == "<|end|>", made
