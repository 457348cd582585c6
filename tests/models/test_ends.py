"""What ends a text, and what is never drawn, is what the files of a model say."""
import json

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer
from minillm.models.load import load
from minillm.tokenizer.chat_template import end_tokens


@pytest.fixture
def directory(tmp_path):
    """A model with 20 rows that no token has, which it would always choose."""
    text = "the cat sat on the mat. " * 50
    tokenizer = Tokenizer.train([text], vocab_size=280, stop_early=True, special_tokens=["<s>"])
    config = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=32, vocab_size=tokenizer.vocab_size + 20)
    model = GPT(config)
    model.params["ln_f.weight"][:] = 0
    model.params["ln_f.bias"][:] = 1
    model.params["wte.weight"][-3] = 1
    model.params["wte.weight"][65] = 0.5                           # the second choice
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


def rename_end(directory, file, value):
    path = directory / file
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"eos_token_id": value}))


def test_ids_without_a_token_are_never_drawn(directory):
    model, tokenizer = load(directory)
    logits = model.decode(np.array([[1, 2]]), model.new_cache(1))
    assert np.all(logits[..., tokenizer.vocab_size:] == -np.inf) and np.all(logits[..., :tokenizer.vocab_size] > -1e9)
    assert model.on(model.ops).known == tokenizer.vocab_size
    assert int(logits[0, -1].argmax()) == 65


@pytest.mark.parametrize("file, value, ends", [
    ("config.json", 7, {7}), ("config.json", [7, 9], {7, 9}), ("generation_config.json", [5], {5}),
    ("config.json", None, set()), ("config.json", 10 ** 6, set()), ("config.json", "</s>", set())])
def test_eos_token_id_ends_a_text(directory, file, value, ends):
    rename_end(directory, "config.json", 3 if file != "config.json" else value)
    rename_end(directory, file, value)
    _, tokenizer = load(directory)
    assert end_tokens(tokenizer) == ends
    assert tokenizer.eot_token == min(ends, default=None)
