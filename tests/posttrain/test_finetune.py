"""The commands sft, dpo and grpo: one after the other, the settings they read, their documented example."""
import json
import shutil

import numpy as np
import pytest
from chats import CHAT, SMALL, TOK, small_model, talk, write

from minillm import GPT, GPTConfig, Tokenizer, TrainConfig
from minillm.__main__ import main
from minillm.config import INSTEAD, names
from minillm.posttrain import finetune as run
from minillm.posttrain.tasks import Addition
from minillm.recipes.train_on_files import train_on_files
from minillm.train.log import read_log


def test_the_three_commands_follow_each_other(tmp_path, capsys):
    base = tmp_path / "base"
    model = small_model(TOK, np.float32)
    model.save_pretrained(base)
    TOK.save(base)
    sums = write(tmp_path / "sums.jsonl", Addition(wrong=0.3).records())
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": talk(f"{i}?")[:1], "chosen": talk(answer="cluck")[1:],
                                              "rejected": talk(answer="a hen")[1:]} for i in range(8)])
    few = ["--set", "train.steps=3", "--json"]
    for name, source, more in (("sft", base, ["--data", sums]),
                               ("dpo", tmp_path / "sft", ["--data", pairs, "--pairs", 2]),
                               ("grpo", tmp_path / "sft", ["--prompts", 2, "--group", 2, "-n", 3])):
        assert main(list(map(str, [name, source, "--out", tmp_path / name, *more, *few]))) == 0
        results = json.loads(capsys.readouterr().out)
        assert results["steps"] == 3 and np.isfinite(results["val_loss"])
        assert GPT.from_pretrained(tmp_path / name).config.vocab_size == TOK.vocab_size + 4
    assert main(["card", str(tmp_path / "grpo")]) == 0                              # tells the whole way
    card = (tmp_path / "grpo" / "MODEL_CARD.md").read_text()
    assert f"- rewarded on addition: 80 records, 20 more held out, starting from {tmp_path / 'sft'}\n" in card
    assert f"- fine-tuned on {sums}: 72 records" in card
    assert main(f"sft {base} --out {tmp_path}/named --data addition --set train.steps=1".split()) == 0
    other = Tokenizer.train(["an other text"], 260)
    small_model(other, np.float32).save_pretrained(tmp_path / "other")
    other.save(tmp_path / "other")
    kept = [(tmp_path / "sft" / name).read_bytes() for name in ("tokenizer.json", "origin.json")]
    assert main(f"sft {tmp_path}/other --out {tmp_path}/sft --data {sums}".split()) == 1                     # refused
    assert kept == [(tmp_path / "sft" / name).read_bytes() for name in ("tokenizer.json", "origin.json")]    # untouched
    assert "--resume never" in capsys.readouterr().err
    assert main(["grpo", str(base), "--out", str(tmp_path / "x"), "--task", "chess"]) == 1
    assert "--task must be one of addition" in capsys.readouterr().err
    assert main(["dpo", str(base), "--out", str(tmp_path / "x"), "--data", str(sums)]) == 1
    assert "sums.jsonl:1: expected prompt, chosen and rejected" in capsys.readouterr().err


@pytest.mark.parametrize("option, words", [
    ([], "3 cut to the context length of 32: their ends are not learned"),
    ([], "of their answers 3 are cut short, which learn no end token, and 0 lie beyond the context"),
    (["--too-long", "drop"], "4 conversations to learn, 1 held out (3 dropped: did not fit the context)")], ids=str)
def test_long_answers_are_told(base, tmp_path, capsys, option, words):
    records = [{"prompt": f"{i}?", "completion": "cluck " * (40 if i < 3 else 1)} for i in range(8)]
    data = write(tmp_path / "long.jsonl", records)
    command = ["sft", base, "--data", data, "--out", tmp_path / "out", "--set", "train.steps=1", *option]
    assert main(list(map(str, command))) == 0
    assert words in capsys.readouterr().out
    assert main([*map(str, command), "--resume", "never", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [results[name] for name in ("dropped", "cut", "answers_cut", "answers_lost")] == (
        [3, 0, 0, 0] if option else [0, 3, 3, 0])


class Watched:
    """A TrainConfig that notes what is read of it."""

    def __init__(self, **settings):
        self.config, self.read = TrainConfig(steps=2, warmup=1, **settings), set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self.config, name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that knows the marks of a chat."""
    directory = tmp_path_factory.mktemp("base")
    small_model(CHAT, np.float32).save_pretrained(directory)
    CHAT.save(directory)
    return directory


def test_dropout_that_is_not_followed_is_told(base, tmp_path, capsys):
    directory = shutil.copytree(base, tmp_path / "base")
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attn_pdrop": 0.3}))
    data = write(tmp_path / "few.jsonl", [{"prompt": f"{i}?", "completion": "cluck"} for i in range(4)])
    assert main(f"sft {directory} --data {data} --out {tmp_path}/out --set train.steps=1".split()) == 0
    assert "not followed: attn_pdrop 0.3, for attention drops nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["train", "sft", "dpo", "grpo"])
def test_a_stage_reads_every_setting_but_those_it_refuses(stage, base, tmp_path):
    records = [{"prompt": f"{i}", "chosen": "cluck", "rejected": "a hen"} for i in range(8)]
    pairs, text = write(tmp_path / "pairs.jsonl", records), write(tmp_path / "text.txt", ["a hen says cluck. " * 200])
    config = Watched(batch_size=2, schedule="wsd", optimizer="muon")
    shape, out = GPTConfig(vocab_size=300, **SMALL), tmp_path / "out"
    {"train": lambda: train_on_files([text], out, shape, config, base),
     "sft": lambda: run.sft(base, "addition", out, config),
     "dpo": lambda: run.prefer(base, pairs, out, config),
     "grpo": lambda: run.reward(base, "addition", out, config, 1, 2, 2)}[stage]()
    refused = {key for command, key in INSTEAD if command == stage} | {"train.patience"}      # of several processes
    assert {f"train.{key}" for key in set(names(TrainConfig)) - config.read} == refused - {"model.vocab_size"}


def test_records_on_both_sides_are_noticed(base, tmp_path):
    same = {"prompt": "what?", "completion": "a hen", "chosen": "cluck", "rejected": "a hen"}
    mixed = [same | {"prompt": f"{i}?"} for i in range(9)]
    config = TrainConfig(steps=1, batch_size=2)
    for records, words in ((mixed, None), ([same] * 9, "1 of 1 records held out are also among those to learn")):
        for stage in (run.sft, run.prefer):
            said = []
            data = write(tmp_path / "records.jsonl", records)
            stage(base, data, tmp_path / "out", config, resume="never", say=said.append)
            assert words in said[0] if words else "ATTENTION" not in said[0]


def test_resume_asks_before_it_takes_another_beta_or_adapter(base, tmp_path):
    records = [{"prompt": f"{i}", "chosen": "cluck", "rejected": "a hen"} for i in range(8)]
    pairs, lora = write(tmp_path / "pairs.jsonl", records), {"rank": 2, "alpha": 4.0, "targets": ("attn.c_attn",)}

    def prefer(steps, beta=0.1, lora=lora, resume="auto"):
        run.prefer(base, pairs, tmp_path / "out", TrainConfig(steps=steps), 2, beta, lora=lora, resume=resume)

    prefer(1)
    prefer(2)
    with pytest.raises(ValueError, match="other settings: beta was 0.1, now 0.3; use --override"):
        prefer(3, 0.3)
    with pytest.raises(ValueError, match="other settings: lora was .*4.0.*, now .*8.0.*; use --override"):
        prefer(3, lora=lora | {"alpha": 8.0})
    prefer(3, 0.3, resume="override")


@pytest.mark.parametrize("command, setting, words", [
    ("dpo", "train.batch_size=4", "dpo does not read train.batch_size: use --pairs"),
    ("dpo", "train.eval_batches=4", "dpo does not read train.eval_batches: use train.eval_every"),
    ("grpo", "batch_size=4", "grpo does not read train.batch_size: use --prompts and --group"),
    ("grpo", "train.eval_batches=4", "grpo does not read train.eval_batches: use train.eval_every")])
def test_what_a_stage_does_not_read_is_refused_in_one_line(base, tmp_path, capsys, command, setting, words):
    more = ["--data", "pairs.jsonl"] if command == "dpo" else []
    assert main([command, str(base), "--out", str(tmp_path / "out"), "--set", setting, *more]) == 1
    assert f"--set {setting}: {words}" in capsys.readouterr().err.splitlines()[-1]


def test_the_documented_example_raises_the_reward(tmp_path, capsys, monkeypatch):
    """The commands of `minillm grpo --help`, shorter: what is tried gets better, and so is what it reports."""
    from minillm.commands.posttrain import GRPO_EXAMPLE
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("any text at all. " * 100)
    lines = [line.partition("#")[0] for line in GRPO_EXAMPLE.replace("\\\n", "").splitlines()
             if line.startswith("minillm ")]
    fewer = {"train": [], "sft": ["--set", "train.steps=250"],
             "grpo": ["--set", "train.steps=100", "--set", "log_every=1"]}
    for name, *arguments in (line.split()[1:] for line in lines):
        assert main([name, *arguments, *fewer[name], "--json"]) == 0
        results = json.loads(capsys.readouterr().out)
    rewards = [row["reward"] for row in read_log("runs/rewarded")]
    first, last = results["tried_first"], results["tried_last"]
    assert (first, last) == pytest.approx((np.mean(rewards[:20]), np.mean(rewards[-20:])))
    assert 0.2 < first < last - 0.04
