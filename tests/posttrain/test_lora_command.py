"""`minillm sft --lora-rank`: adapters from the command line, and the base that they name."""
import json

import numpy as np
from chats import CHAT, TOK, small_model, talk, write
from tolerances import assert_same_bits

from minillm import GPT
from minillm.__main__ import main
from minillm.models.adapted import load_adapter
from minillm.train.log import read_log


def test_a_base_without_marks_gets_them_in_a_folder_that_the_adapter_names(tmp_path):
    small_model(TOK, np.float32).save_pretrained(tmp_path / "base")
    TOK.save(tmp_path / "base")
    data = write(tmp_path / "chats.jsonl", [{"messages": talk(f"{i}?")} for i in range(8)])
    command = f"sft {tmp_path}/base --data {data} --out {tmp_path}/out --lora-rank 2 --set train.steps=2"
    assert main(command.split()) == 0
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    base = GPT.from_pretrained(config["base_model_name_or_path"])
    assert base.config.vocab_size == CHAT.vocab_size                         # PEFT finds the rows of the marks there
    made = load_adapter(base, tmp_path / "out" / "adapter")
    assert_same_bits(made.merged().params.flat, GPT.from_pretrained(tmp_path / "out").params.flat)


def test_the_command_trains_adapters(tmp_path, capsys):
    small_model(dtype=np.float32).save_pretrained(tmp_path / "base")
    CHAT.save(tmp_path / "base")
    data = write(tmp_path / "chats.jsonl", [{"messages": talk(f"{i}?")} for i in range(8)])
    command = f"sft {tmp_path}/base --data {data} --out {tmp_path}/out --lora-rank 2 --set train.steps=2".split()
    assert main(command) == 0
    assert "trainable parameters" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2 and config["lora_alpha"] == 4 and config["base_model_name_or_path"] == f"{tmp_path}/base"
    assert main([*command[:-1], "train.steps=3", "--lora-targets", "wte", "--resume", "never"]) == 1
    assert "targets must be some of" in capsys.readouterr().err
    for setting in (["--lora-alpha", "0"], ["--lora-dropout", "0.1"], ["--lora-targets", "mlp.c_fc"]):
        without = [part for part in command if part not in ("--lora-rank", "2")]
        assert main([*without, *setting]) == 1
        assert "need --lora-rank" in capsys.readouterr().err
    assert main([*command, "--lora-alpha", "0"]) == 1
    assert "alpha must be above 0" in capsys.readouterr().err


def test_training_goes_on_with_an_adapter(tmp_path, capsys):
    """The first loss is the last one's; dpo's reference is the base with the adapter, so its first margin is 0."""
    small_model(dtype=np.float32).save_pretrained(tmp_path / "base")
    CHAT.save(tmp_path / "base")
    data = write(tmp_path / "chats.jsonl", [{"messages": talk(f"{i}?")} for i in range(8)])
    answers = {"chosen": "cluck", "rejected": "moo"}
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": f"{i}?"} | answers for i in range(8)])
    first = f"sft {tmp_path}/base --data {data} --out {tmp_path}/out --lora-rank 2 --lora-targets c_attn"
    assert main([*first.split(), "--set", "train.steps=8", "--set", "train.lr=0.03"]) == 0
    began = load_adapter(GPT.from_pretrained(tmp_path / "base"), tmp_path / "out")
    for command, file in (("sft", data), ("dpo", pairs)):
        words = f"{command} {tmp_path}/base --data {file} --out {tmp_path}/{command} --init-adapter {tmp_path}/out"
        assert main([*words.split(), "--set", "train.steps=1", "--set", "train.lr=1e-9", "--set", "min_lr=1e-9"]) == 0
        went_on = load_adapter(began.base, tmp_path / command)
        assert np.allclose(went_on.params.flat, began.params.flat, atol=1e-6) and went_on.placed == began.placed
    assert abs(read_log(tmp_path / "dpo")[-1]["margin"]) < 1e-6
    capsys.readouterr()
    assert main([*words.split(), "--lora-rank", "2"]) == 1
    assert "leave out the --lora options" in capsys.readouterr().err
