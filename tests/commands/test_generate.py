"""`minillm generate` as a user types it: text and JSON, samples, stop strings, drafts, and mistakes."""
import json

import numpy as np
import pytest

from minillm.__main__ import main, parser
from minillm.config import GPTConfig
from minillm.models.gpt2 import GPT
from minillm.tokenizer import Tokenizer

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20, "Größe und Übermut € 🙂\n" * 10]


def save_model(directory, vocab_size, block_size=48, seed=0, noise=0.3):
    tokenizer = Tokenizer.train(TEXTS, vocab_size, special_tokens=["<|endoftext|>"])
    config = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=block_size, vocab_size=tokenizer.vocab_size)
    model = GPT(config, seed)
    model.params.flat[:] += noise * np.random.default_rng(seed).standard_normal(model.params.flat.size)
    model.save_pretrained(directory)
    tokenizer.save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A target, a draft with its tokenizer, and a model with another."""
    folder = tmp_path_factory.mktemp("models")
    return {"target": save_model(folder / "target", 280), "draft": save_model(folder / "draft", 280, 24, 1),
            "stranger": save_model(folder / "stranger", 270)}


def run(capsys, *arguments):
    assert main(["generate", *map(str, arguments)]) == 0
    return capsys.readouterr()


def as_json(capsys, *arguments):
    return json.loads(run(capsys, *arguments, "--json").out)


def test_text_is_what_json_says(models, capsys):
    arguments = models["target"], "-p", "The quick", "-n", 40, "--seed", 3
    told = as_json(capsys, *arguments)
    sample, = told["samples"]
    assert run(capsys, *arguments).out == "The quick" + sample["text"] + "\n"
    assert told["prompt"] == "The quick" and told["speculation"] is None and sample["seed"] == 3
    assert len(sample["tokens"]) <= 40 and sample["finish"] in ("stop", "length")
    decode = Tokenizer.from_pretrained(models["target"]).decode
    assert sample["text"] == decode([token["id"] for token in sample["tokens"]])


def test_samples_are_runs_with_the_next_seeds(models, capsys):
    arguments = models["target"], "-p", "The", "-n", 12, "--temperature", 1.2
    together = as_json(capsys, *arguments, "--samples", 3, "--seed", 5)["samples"]
    alone = [as_json(capsys, *arguments, "--seed", seed)["samples"][0] for seed in (5, 6, 7)]
    assert together == alone and len({sample["text"] for sample in together}) > 1
    assert run(capsys, *arguments, "--samples", 2).out.count("--- ") == 2


def test_stop_strings_end_the_text_and_do_not_show(models, capsys):
    arguments = models["target"], "-p", "The", "-n", 40, "--temperature", 0
    whole = as_json(capsys, *arguments)["samples"][0]["text"]
    stop = whole[len(whole) // 2:][:3]
    cut = as_json(capsys, *arguments, "--stop", "never there", "--stop", stop)["samples"][0]
    assert cut["text"] == whole[:whole.index(stop)] and cut["finish"] == "stop"
    assert run(capsys, *arguments, "--stop", stop).out == "The" + cut["text"] + "\n"


def test_the_tokens_of_a_stop_string_are_not_told(models, capsys):
    """Of those that are, the last begins in the text, if it does not end there."""
    arguments = models["target"], "-p", "The", "-n", 40, "--temperature", 1.5
    decode, told = Tokenizer.from_pretrained(models["target"]).decode, 0
    for seed in range(8):
        whole = as_json(capsys, *arguments, "--seed", seed)["samples"][0]
        stop = whole["text"][10:13]
        cut = as_json(capsys, *arguments, "--seed", seed, "--stop", stop)["samples"][0]
        ids = [token["id"] for token in cut["tokens"]]
        assert ids == [token["id"] for token in whole["tokens"][:len(ids)]] and decode(ids).startswith(cut["text"])
        assert not ids or len(decode(ids[:-1])) < len(cut["text"]) < len(whole["text"])
        told += len(ids)
    assert told > 20


@pytest.mark.parametrize("length", [10, 60])                       # 60: past the end of the context
def test_greedy_text_is_the_same_with_any_draft(models, capsys, length):
    arguments = models["target"], "-p", "The quick brown fox", "-n", length, "--temperature", 0, "--backend", "numpy"
    plain = as_json(capsys, *arguments)["samples"]
    for draft in (["--draft", models["draft"]], ["--draft", models["target"]], ["--lookup", "--draft-tokens", 2]):
        told = as_json(capsys, *arguments, *draft)
        assert [token["id"] for token in told["samples"][0]["tokens"]] == [token["id"] for token in plain[0]["tokens"]]
        assert 0 <= told["speculation"]["acceptance"] <= 1 <= told["speculation"]["tokens_per_pass"]
    assert "of the draft tokens accepted" in run(capsys, *arguments, "--lookup").err


def test_logprobs(models, capsys):
    arguments = models["target"], "-p", "The", "-n", 5, "--logprobs", 2
    for token in as_json(capsys, *arguments)["samples"][0]["tokens"]:
        first, second = token["top"]
        assert first["logprob"] >= second["logprob"] and first["logprob"] >= token["logprob"] and token["logprob"] <= 0
    assert len(run(capsys, *arguments).out.splitlines()) >= 5


def test_long_prompts_and_empty_ones(models, capsys):
    long = "The quick brown fox jumps over the lazy dog. " * 30
    assert run(capsys, models["target"], "-p", long, "-n", 5).out.startswith(long)
    assert run(capsys, models["target"], "-n", 5, "--draft", models["draft"]).out
    assert run(capsys, models["target"], "-p", "x", "-n", 0).out == "x\n"


@pytest.mark.parametrize("arguments, words", [
    (["--temperature", "-1"], "temperature must"), (["--temperature", "nan"], "temperature must"),
    (["--top-k", "0"], "top_k must"), (["--top-p", "1.5"], "top_p must"), (["--min-p", "-1"], "min_p must"),
    (["--repetition-penalty", "0"], "repetition_penalty must"), (["--seed", "-1"], "seed must"),
    (["--stop", ""], "stop must"), (["--samples", "0"], "--samples must"), (["--logprobs", "-1"], "--logprobs must"),
    (["--lookup", "--draft-tokens", "0"], "--draft-tokens must"), (["-n", "-1"], "--max-new-tokens must"),
    (["--draft", "{stranger}"], "its tokenizer is not that of"), (["--draft", "/nowhere"], "/nowhere"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_mistakes_get_one_line(models, capsys, arguments, words):
    assert main(["generate", models["target"], "-p", "x", *(argument.format(**models) for argument in arguments)]) == 1
    out, error = capsys.readouterr()
    assert words in error and not out and error.count("\n") == 1 and error.startswith("minillm generate: ")


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["generate", "--help"])
    page = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "example: minillm generate" in page and "longer than the model's context" in page


def test_special_tokens_in_the_prompt_are_what_the_user_says(tmp_path, capsys):
    model = save_model(tmp_path / "chat", 280)
    tokenizer = Tokenizer.from_pretrained(model)
    prompt = "The<|endoftext|>fox"
    assert main(["generate", model, "-p", prompt, "-n", "3"]) == 1
    error = capsys.readouterr().err
    assert "--prompt holds the special token <|endoftext|>: add --special" in error and "disallowed" not in error
    made = GPT.from_pretrained(model)
    for option, ids in (("--special", tokenizer.encode(prompt, "all")),
                        ("--no-special", tokenizer.encode_ordinary(prompt))):
        told = as_json(capsys, model, "-p", prompt, "-n", 1, option, "--logprobs", 0)["samples"][0]["tokens"]
        logits = made.forward(np.array([ids]))[0][0, -1].astype(np.float64)
        if told:                                            # else it was the end of the text
            wanted = logits[told[0]["id"]] - np.log(np.exp(logits).sum())
            assert told[0]["logprob"] == pytest.approx(wanted, abs=1e-4)
    assert len(tokenizer.encode(prompt, "all")) < len(tokenizer.encode_ordinary(prompt))


def test_an_int8_cache_and_what_multiplies_quantized_weights(models, tmp_path, capsys):
    """With drafts too: greedily the same text, from both caches' nearly equal logits."""
    assert main(["quantize", models["target"], "-o", str(tmp_path / "int8")]) == 0
    capsys.readouterr()
    words = [tmp_path / "int8", "-p", "The quick", "-n", 12, "--temperature", 0]
    said = run(capsys, *words, "--kv-cache", "int8")
    assert "int8 weights, integer arithmetic" in said.err and "integer" not in said.out
    for draft in (["--lookup"], ["--draft", models["draft"]]):
        drafted = as_json(capsys, *words, "--kv-cache", "int8", *draft)["samples"][0]["text"]
        assert said.out.rstrip("\n") == "The quick" + drafted
    assert run(capsys, models["target"], "-n", 2).err == ""
