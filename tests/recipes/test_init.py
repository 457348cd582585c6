"""`minillm train --init DIR`: any model goes on, as it is, with a longer context, with more tokens; and resumes."""
import json
from dataclasses import replace

import numpy as np
import pytest

from minillm import GPT, GPTConfig, LlamaConfig, Tokenizer, TrainConfig, load_model
from minillm.__main__ import main
from minillm.models.grow import with_context, with_vocabulary
from minillm.models.llama import Llama
from minillm.models.load import load
from minillm.models.quantized import quantize, save_quantized
from minillm.recipes.initial_model import continued_config
from minillm.recipes.train_on_files import train_on_files

TEXT = "the cat sat on the mat and said hello to the dog, who did not answer. " * 40
TOK = Tokenizer.train([TEXT], 300, stop_early=True)
V = TOK.vocab_size
MODELS = {
    "gpt2": GPT(GPTConfig(1, 2, 16, 16, V), seed=1),
    "untied, exact GELU": GPT(GPTConfig(1, 2, 16, 16, V, tied=False, activation="gelu", n_inner=24), seed=1),
    "llama": Llama(LlamaConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, n_inner=24, block_size=16,
                               vocab_size=V), seed=1),
    "qwen3": Llama(LlamaConfig("qwen3", 1, 2, 1, 8, 16, 24, 16, V, qk_norm=True, tied=True), seed=1)}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr("minillm.recipes.train_on_files.plot_losses", lambda run: None)


@pytest.fixture(params=MODELS)
def base(request, tmp_path):
    return saved(MODELS[request.param], tmp_path / "base")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(f"{i}. {TEXT[:300]}" for i in range(20)))
    return tmp_path / "text.txt"


def saved(model, directory, tokenizer=TOK):
    model.save_pretrained(directory, tokenizer.eot_token)
    tokenizer.save(directory)
    return directory


def trained(base, text, out, steps=2, tokenizer=None, resume="auto", lora=None, say=lambda text: None, **given):
    config = TrainConfig(steps=steps, batch_size=2, warmup=0, lr=1e-3, min_lr=1e-3, save_every=2)
    return train_on_files([text], out, continued_config(base, given), config, tokenizer, resume=resume,
                          say=say, init=base, lora=lora)


def weights_of(run):
    return load_model(run).params.flat.copy()


def test_it_goes_on_from_the_weights_and_the_tokenizer(base, text, tmp_path):
    """The first loss is that of the base; a run in two parts has the bytes of a run in one."""
    before = load_model(base)
    trained(base, text, tmp_path / "run", 4)
    after = load_model(tmp_path / "run")
    assert after.config == before.config and 0 < np.abs(after.params.flat - before.params.flat).max() < 0.02
    assert Tokenizer.from_pretrained(tmp_path / "run").merges == TOK.merges
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    assert (origin["how"], origin["base"], origin["data"]) == ("continued", str(base), str(text))
    trained(base, text, tmp_path / "parts", 2)
    trained(base, text, tmp_path / "parts", 4)
    assert np.array_equal(weights_of(tmp_path / "parts" / "last"), weights_of(tmp_path / "run" / "last"))


def test_dropout_is_that_of_the_directory_and_what_is_not_followed_is_said(text, tmp_path):
    """Once for a run that takes it from there; a rate that is asked for needs no word."""
    path, said = saved(MODELS["gpt2"], tmp_path / "base") / "config.json", []
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resid_pdrop": 0.2, "embd_pdrop": 0.2,
                                                               "attn_pdrop": 0.3}))
    trained(path.parent, text, tmp_path / "run", 1, say=said.append)
    assert load_model(tmp_path / "run").config.dropout == 0.2
    trained(path.parent, text, tmp_path / "other", 1, say=said.append, dropout=0.1)
    assert load_model(tmp_path / "other").config.dropout == 0.1
    told = [line for line in said if line.startswith("dropout")]
    assert len(told) == 1 and told[0].endswith("not followed: attn_pdrop 0.3, for attention drops nothing")


def test_a_longer_context_and_more_tokens(base, text, tmp_path):
    larger = tmp_path / "larger"
    larger.mkdir()
    TOK.with_special_tokens(["<|one|>", "<|two|>"]).save(larger)
    trained(base, text, tmp_path / "run", tokenizer=larger, block_size=40)
    model = load_model(tmp_path / "run")
    assert (model.config.block_size, model.config.vocab_size) == (40, V + 2)
    assert np.isfinite(model.forward(np.arange(40)[None])[0]).all()


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_known_stays(kind):
    """Old tokens in the old context have the old logits, new ones a middling one; new positions repeat the old."""
    model, tokens = MODELS[kind], np.arange(20, 36)[None]
    grown, want = with_context(with_vocabulary(model, V + 5), 40), model.forward(tokens)[0]
    logits = grown.forward(tokens)[0]
    np.testing.assert_allclose(logits[..., :V], want, rtol=0, atol=1e-5)
    assert np.abs(logits[..., V:]).max() < np.abs(want).max()
    for name in model.rows_of_tokens:
        assert not np.array_equal(grown.params[name][V], grown.params[name][V + 1])
    if kind.startswith("gpt2"):
        assert np.array_equal(grown.params["wpe.weight"][16:32], model.params["wpe.weight"])
        assert np.array_equal(grown.params["wpe.weight"][32:], model.params["wpe.weight"][:8])
    assert with_context(model, 16) is model and with_vocabulary(model, 3) is model
    np.testing.assert_allclose(with_context(grown, 16).forward(tokens)[0], logits, rtol=0, atol=1e-5)


def test_scaled_rotary_frequencies_do_not_move():
    scaling = (("factor", 4.0), ("rope_type", "yarn"))
    model = Llama(replace(MODELS["llama"].config, rope_scaling=scaling), seed=1)
    tokens = np.arange(20, 36)[None]
    assert np.array_equal(with_context(model, 64).forward(tokens)[0], model.forward(tokens)[0])


def test_clear_errors(text, tmp_path):
    base = saved(MODELS["gpt2"], tmp_path / "base")
    for given, words in (({"n_layer": 2}, "model.n_layer is that of --init .*, 1: got 2"),
                         ({"dropout": 2.0}, "dropout"), ({"block_size": 0}, "block_size")):
        with pytest.raises(ValueError, match=words):
            continued_config(base, given)
    assert continued_config(base, {"n_layer": 1, "dropout": 0.1}).dropout == 0.1
    with pytest.raises(FileNotFoundError, match="--init nowhere: there is no such directory"):
        continued_config("nowhere", {})
    other = tmp_path / "other"
    other.mkdir()
    Tokenizer.train(["quite another text, zzz zzz"], 290, stop_early=True).save(other)
    with pytest.raises(ValueError, match="--tokenizer does not continue the vocabulary of --init .*: id 256 is b'"):
        trained(base, text, tmp_path / "run", tokenizer=other)
    stored = tmp_path / "stored"
    stored.mkdir()
    save_quantized(stored, quantize(MODELS["gpt2"], "int8"))
    TOK.save(stored)
    with pytest.raises(ValueError, match="int8 weights have no gradients"):
        trained(stored, text, tmp_path / "run")


@pytest.mark.parametrize("block_size", [16, 24])
def test_adapters_alone(base, text, tmp_path, block_size):
    """Resumed with the bytes of a run in one; the base is as it was, and the adapter on it is the run's model."""
    before = weights_of(base)
    for out, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        trained(base, text, tmp_path / out, steps, lora={"rank": 2, "alpha": 4.0}, block_size=block_size)
    assert np.array_equal(weights_of(base), before)
    whole, parts = (weights_of(tmp_path / out) for out in ("whole", "parts"))
    assert np.array_equal(whole, parts) and (len(whole) != len(before) or not np.array_equal(whole, before))
    told = json.loads((tmp_path / "whole" / "adapter" / "adapter_config.json").read_text())
    frozen = told["base_model_name_or_path"]
    assert frozen == str(base if block_size == 16 else tmp_path / "whole" / "base")
    merged, _ = load(frozen, adapter=tmp_path / "whole" / "adapter")
    np.testing.assert_allclose(merged.params.flat, whole, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="different adapter than fits here"):
        trained(base, text, tmp_path / "whole", 6, lora={"rank": 1, "alpha": 4.0}, block_size=block_size)


def test_the_command_trains_adapters(text, tmp_path, capsys):
    base = saved(MODELS["qwen3"], tmp_path / "base")
    words = ["train", "--data", str(text), "--out", str(tmp_path / "run"), "--set", "train.steps=2"]
    assert main([*words, "--init", str(base), "--lora-rank", "2", "--lora-targets", "q_proj"]) == 0
    assert "adapters    64 trainable parameters" in capsys.readouterr().out
    assert main([*words, "--lora-rank", "2"]) == 1
    assert "--lora-rank trains adapters of a model that is there: name it with --init" in capsys.readouterr().err


def test_another_base_does_not_resume_the_run(text, tmp_path):
    base = saved(MODELS["gpt2"], tmp_path / "base")
    trained(base, text, tmp_path / "run")
    other = saved(GPT(MODELS["gpt2"].config, seed=9), tmp_path / "other")
    with pytest.raises(ValueError, match="was trained with other settings: init was"):
        trained(other, text, tmp_path / "run", 4)
    trained(other, text, tmp_path / "run", 2, resume="never")


def test_the_command(text, tmp_path, capsys):
    base = saved(MODELS["llama"], tmp_path / "base")
    assert main(["train", "--init", str(base), "--data", str(text), "--out", str(tmp_path / "run"), "--set",
                 "model.block_size=24", "--set", "train.steps=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1 and load_model(tmp_path / "run").config.block_size == 24
    assert main(["train", "--init", str(base), "--data", str(text), "--out", str(tmp_path / "run2"), "--set",
                 "model.n_embd=24"]) == 2 or "model.n_embd is that of --init" in capsys.readouterr().err


def test_transformers_reads_the_run(base, text, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    trained(base, text, tmp_path / "run", block_size=32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run").float().eval()
    tokens = np.arange(30)[None]
    with torch.no_grad():
        want = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(load_model(tmp_path / "run").forward(tokens)[0], want, rtol=0, atol=2e-5)
