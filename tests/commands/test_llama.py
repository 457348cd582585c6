"""The command line on the directory of a Llama: what works for GPT-2 works here."""
import json

import pytest

from minillm import Llama, LlamaConfig, Tokenizer, load_model
from minillm.__main__ import main

CHAT = [{"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]}
        for word in ("one", "two", "three", "four")]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama") / "model"
    tokenizer = Tokenizer.train(["the cat sat on the mat. " * 50], vocab_size=280, stop_early=True)
    config = LlamaConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, n_inner=24, block_size=64,
                         vocab_size=tokenizer.vocab_size)
    Llama(config).save_pretrained(directory, tokenizer.eot_token)
    tokenizer.save(directory)
    return directory


def run(*args):
    return main([str(arg) for arg in args])


def test_generate_and_evaluate(llama, tmp_path, capsys):
    assert run("generate", llama, "-p", "the cat", "--max-new-tokens", 4, "--temperature", 0) == 0
    assert capsys.readouterr().out.startswith("the cat")
    (tmp_path / "held.txt").write_text("the cat sat on the mat. " * 20)
    assert run("eval", llama, "--tasks", "bpb", "--data", tmp_path / "held.txt") == 0
    assert run("card", llama) == 0
    assert any("Llama architecture" in card.read_text() for card in llama.glob("*.md"))


def test_fine_tuning_learns_on_packed_rows(llama, tmp_path):
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(record) + "\n" for record in CHAT))
    out = tmp_path / "out"
    assert run("sft", llama, "--data", tmp_path / "chat.jsonl", "--out", out, "--set", "steps=3") == 0
    tuned = load_model(out)
    assert isinstance(tuned, Llama) and tuned.config.vocab_size > load_model(llama).config.vocab_size
    assert run("generate", out, "-p", "say", "--max-new-tokens", 2) == 0
