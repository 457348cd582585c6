"""Training every family from scratch by the command line: train, resume, generate, eval, card; Muon and a mean."""
import json

import pytest

from minillm.__main__ import main
from minillm.models.llama_files import ARCHITECTURES

TINY = ["--set", "n_layer=1", "--set", "n_head=2", "--set", "n_embd=16", "--set", "block_size=16", "--set",
        "train.batch_size=2", "--set", "eval_every=4", "--vocab-size", "300"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(12):
        (folder / f"note{i}.txt").write_text(f"Note {i}: the quick brown fox jumps over {i} lazy dogs.\n" * 8)
    return folder


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_is_trained_resumed_and_used(family, texts, tmp_path, capsys):
    args = ["train", "--data", str(texts), "--out", str(tmp_path / "run"), *TINY, "--set", f"model.family={family}",
            "--set", "optimizer=muon", "--set", "ema=0.9", "--set", "n_kv_head=1", "--json"]
    for steps in (4, 6):                                                            # the second time it goes on
        assert main([*args, "--set", f"train.steps={steps}"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["steps"] == steps
    assert "resuming from step 4" in said.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["model_type"], config["num_key_value_heads"]) == (family, 1)
    assert main(["generate", str(tmp_path / "run"), "-p", "Note", "--max-new-tokens", "3"]) == 0
    (tmp_path / "held.txt").write_text("the quick brown fox jumps. " * 20)
    assert main(["eval", str(tmp_path / "run"), "--tasks", "bpb", "--data", str(tmp_path / "held.txt")]) == 0
    assert main(["card", str(tmp_path / "run")]) == 0


def test_a_family_from_toml(texts, tmp_path):
    (tmp_path / "c.toml").write_text("[model]\nfamily = 'llama'\nn_layer = 1\nn_head = 2\nn_embd = 16\n"
                                     "block_size = 16\nrope_scaling = {rope_type = 'linear', factor = 2.0}\n"
                                     "[train]\nsteps = 2\n")
    assert main(["train", str(tmp_path / "c.toml"), "--data", str(texts), "--out", str(tmp_path / "run"),
                 "--vocab-size", "300"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 2.0 and config["tie_word_embeddings"]


@pytest.mark.parametrize("setting, words", [("model.qk_norm=true", "model.qk_norm is not a setting of family gpt2"),
                                            ("model.family=mamba", "model.family must be one of gpt2, llama"),
                                            ("train.optimizer=sgd", "optimizer must be adamw or muon"),
                                            ("train.ema=1", "ema must be a number in"),
                                            ("train.momentum=1", "momentum must be a number in")])
def test_what_is_wrong_is_one_line(setting, words, texts, tmp_path, capsys):
    assert main(["train", "--data", str(texts), "--out", str(tmp_path), *TINY, "--set", setting]) != 0
    assert words in capsys.readouterr().err


def test_a_plan_of_a_family(capsys):
    assert main(["plan", "--set", "model.family=qwen3", "--set", "n_layer=2", "--set", "optimizer=muon"]) == 0
    said = capsys.readouterr().out
    assert "grouped_attention" in said and "muon" in said
