"""A model with its tokenizer: what belongs together is loaded, what does not is one clear error."""
import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer
from minillm.models.load import load, load_model


@pytest.fixture
def run(tmp_path):
    tokenizer = Tokenizer.train(["the quick brown fox " * 9], 270, stop_early=True)
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=tokenizer.vocab_size)
    GPT(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


def test_both_are_loaded(run):
    model, tokenizer = load(run, "numpy", np.float64)
    assert model.config.vocab_size == tokenizer.vocab_size and model.params.flat.dtype == np.float64


def test_the_family_is_that_of_the_configuration(run):
    model = load_model(run, dtype=np.float64)
    assert type(model) is GPT and model.params.flat.dtype == np.float64
    path = run / "config.json"
    path.write_text(path.read_text().replace('"model_type": "gpt2"', '"model_type": "mamba"'))
    with pytest.raises(ValueError, match="config.json: model_type = 'mamba' is not supported"):
        load_model(run)


def test_a_special_token_that_the_model_has_no_row_for_is_left_out(run):
    tokenizer = Tokenizer.from_pretrained(run)
    tokenizer.with_special_tokens(["<|more|>"]).save(run)
    with pytest.warns(UserWarning, match=r"the model has no embedding for <\|more\|> of its tokenizer"):
        assert load(run)[1].vocab_size == tokenizer.vocab_size


def test_a_directory_that_is_none_is_said(run):
    for name, words in (("nowhere", "there is no such directory"), ("config.json", r"a file, but not named \*\.gguf")):
        with pytest.raises(FileNotFoundError, match=words):
            load(run / name)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load(run)
