"""--adapter DIR: a base model with an adapter on top, in generate, chat, eval, serve, safety, card and grpo."""
import io
import json

import numpy as np
import pytest
from chats import CHAT, TOK, small_model

from minillm import GPT, load_model
from minillm.__main__ import main
from minillm.generation.sampling import Sampling
from minillm.generation.text import generate_text, load_generator
from minillm.models.adapted import LoraModel, load_adapter, save_adapter
from minillm.models.adapter_files import whole_name
from minillm.models.load import load
from minillm.models.quantized import dequantized_model
from minillm.storage.safetensors import read_safetensors, write_safetensors
from minillm.tokenizer.chat_template import save_tokenizer


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(base, adapter): a model that knows no marks, and an adapter that changes what it says."""
    folder = tmp_path_factory.mktemp("adapter")
    base = small_model(TOK, np.float32)
    base.params.flat *= 3
    base.save_pretrained(folder / "base", TOK.eot_token)
    TOK.save(folder / "base")
    made = LoraModel(base, rank=2, targets=["c_attn", "c_fc"], name="somewhere/else")
    made.params.flat += np.random.default_rng(0).standard_normal(made.params.flat.size).astype(np.float32)
    save_adapter(made, folder / "lora")
    return folder / "base", folder / "lora"


def run(capsys, *words):
    code = main(list(map(str, words)))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_generate_says_what_the_merged_model_says(places, tmp_path, capsys):
    base, lora = places
    load_adapter(load_model(base), lora).merged().save_pretrained(tmp_path / "merged")
    TOK.save(tmp_path / "merged")
    words = ["-p", "a hen", "-n", 12, "--temperature", 0]
    said = run(capsys, "generate", base, "--adapter", lora, *words)
    assert said == run(capsys, "generate", tmp_path / "merged", *words) != run(capsys, "generate", base, *words)


def test_chat_takes_it(places, monkeypatch, capsys):
    answers = []
    for more in ([], ["--adapter", places[1]]):
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
        answers.append(run(capsys, "chat", places[0], "-n", 8, "--temperature", 0, *more))
    assert answers[0] != answers[1]


def test_eval_compares_it_with_its_base(places, tmp_path, capsys):
    base, lora = places
    (tmp_path / "held.txt").write_text("a hen says cluck. " * 20)
    found = json.loads(run(capsys, "eval", base, "--adapter", lora, "--against", base, "--tasks", "bpb", "--data",
                           tmp_path / "held.txt", "--json"))
    with_it, without = found["rows"]
    assert with_it["model"] == f"{base} + {lora}" and without["model"] == str(base)
    assert with_it["value"] != without["value"]
    assert found["comparisons"][0] | {"first": with_it["model"], "second": without["model"]} == found["comparisons"][0]
    assert json.loads((lora / "evaluation.json").read_text())["rows"] == found["rows"]
    assert not (base / "evaluation.json").exists()                      # whose card would tell the adapter's figures
    alone = json.loads(run(capsys, "eval", base, "--tasks", "bpb", "--data", tmp_path / "held.txt", "--json"))
    assert alone["rows"][0]["value"] == without["value"]


def test_safety_answers_with_it_and_the_card_tells_both(places, tmp_path, capsys):
    base, lora = places
    (tmp_path / "p.jsonl").write_text(json.dumps({"category": "kind", "prompt": "a hen?", "harmful": False}))
    words = ["--prompts", tmp_path / "p.jsonl", "-n", 8, "--out", tmp_path / "answers.jsonl", "--json"]
    said = []
    for more in ([], ["--adapter", lora]):
        results = json.loads(run(capsys, "safety", base, *words, *more))
        said.append(json.loads((tmp_path / "answers.jsonl").read_text())["answer"])
    assert said[0] != said[1] and json.loads((lora / "safety.json").read_text()) == results
    run(capsys, "eval", base, "--adapter", lora, "--tasks", "samples")
    assert run(capsys, "card", base, "--adapter", lora).strip() == str(lora / "MODEL_CARD.md")
    card = (lora / "MODEL_CARD.md").read_text()
    assert "adapters of rank 2 on " in card and "merged; base: somewhere/else" in card and "| kind | 1 |" in card
    assert f"{base} + {lora}" in card and not (base / "MODEL_CARD.md").exists()
    assert main(["card", str(base), "--adapter", str(tmp_path)]) == 1
    assert "there is no adapter" in capsys.readouterr().err


@pytest.mark.parametrize("option, rank", [("--adapter", []), ("--adapter", ["--lora-rank", "1"]),
                                          ("--init-adapter", [])], ids=["whole", "adapters", "going on"])
def test_grpo_begins_from_it(places, tmp_path, capsys, option, rank):
    """A step of no size leaves the merged model as it was; adapters get a base that has it merged."""
    base, lora = places
    run(capsys, "grpo", base, option, lora, "--out", tmp_path / "run", "--prompts", 1, "--group", 2, "-n", 2,
        *rank, *(word for setting in ("steps=1", "lr=1e-12", "min_lr=0.0", "eval_every=0") for word in
                 ("--set", f"train.{setting}")))
    want = load_adapter(load_model(base), lora).merged().params.flat
    assert np.allclose(load_model(tmp_path / "run").params.flat, want, atol=1e-6)
    if rank:
        assert np.array_equal(load_model(tmp_path / "run" / "base").params.flat, want)
        assert load(tmp_path / "run" / "base", adapter=tmp_path / "run")[0].params.flat.shape == want.shape


def test_serve_names_it(places, monkeypatch):
    pytest.importorskip("uvicorn")
    from minillm.serve import listen
    served = []
    monkeypatch.setattr(listen, "serve", lambda engine, name, *more, **rest: served.append((engine, name)))
    assert main(["serve", str(places[0]), "--adapter", str(places[1]), "--port", "0"]) == 0
    (engine, name), = served
    assert name == "base+lora"
    want = load_adapter(load_model(places[0]), places[1]).merged()
    assert np.array_equal(dequantized_model(engine.model).params.flat, want.params.flat)    # it decodes by panels


def test_its_own_tokenizer_and_tokens_are_used(places, tmp_path):
    """As PEFT saves it after the vocabulary grew: the tokenizer beside it, the embedding within."""
    base, lora = places
    grown = small_model(CHAT, np.float32)
    grown.params["wte.weight"][:TOK.vocab_size] = load_model(base).params["wte.weight"]
    tensors = read_safetensors(lora / "adapter_model.safetensors")[0]
    rows = grown.params["wte.weight"].copy()
    for name in ("wte.weight", "lm_head.weight"):
        tensors[whole_name(name, "transformer.")] = rows
    (tmp_path / "adapter_config.json").write_text((lora / "adapter_config.json").read_text())
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors)
    save_tokenizer(CHAT, tmp_path)
    model, tokenizer = load(base, adapter=tmp_path)
    assert model.config.vocab_size == tokenizer.vocab_size == CHAT.vocab_size and "<|end|>" in tokenizer.special_tokens
    assert np.array_equal(model.params["wte.weight"], rows)
    assert load(base)[1].vocab_size == TOK.vocab_size
    assert tokenizer.ends == {TOK.eot_token} - {None} | {CHAT.special_tokens["<|end|>"]}    # the model's, its own
    text = generate_text(load_generator(base, adapter=tmp_path), "a hen", 4, Sampling(temperature=0))
    assert text["tokens"]
    tensors[whole_name("lm_head.weight", "transformer.")] = rows + 1
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors)
    assert not load(base, adapter=tmp_path)[0].config.tied
    tensors[whole_name("lm_head.weight", "transformer.")] = rows[1:]
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors)
    with pytest.raises(ValueError, match=rf"'lm_head.weight' has shape \({CHAT.vocab_size - 1}, 16\), but the base"):
        load(base, adapter=tmp_path)


def test_a_run_of_ours_brings_its_adapter_and_its_tokenizer(places, tmp_path, capsys):
    base, _ = places
    records = [{"instruction": f"{i}?", "input": "", "output": "cluck"} for i in range(8)]
    (tmp_path / "alpaca.json").write_text(json.dumps(records, indent=1))
    run(capsys, "sft", base, "--data", tmp_path / "alpaca.json", "--out", tmp_path / "run", "--lora-rank", 2, "--set",
        "train.steps=2")
    merged, adapted = load(tmp_path / "run"), load(tmp_path / "run" / "base", adapter=tmp_path / "run")
    assert np.array_equal(merged[0].params.flat, adapted[0].params.flat)
    assert adapted[1].special_tokens == merged[1].special_tokens and adapted[1].ends == merged[1].ends
    assert main(["generate", str(base), "--adapter", str(tmp_path / "run")]) == 1     # which has no rows for the marks
    error = capsys.readouterr().err
    assert f"the tokenizer has {CHAT.vocab_size} ids, the model in {base} only {TOK.vocab_size}" in error
    assert error.rstrip().endswith(f"it was trained on {tmp_path / 'run' / 'base'}")
    assert isinstance(merged[0], GPT)


@pytest.mark.parametrize("command", ["generate", "chat", "eval"])
def test_what_does_not_fit_is_one_clear_error(places, tmp_path, capsys, command):
    base, lora = places
    other = GPT(type(load_model(base).config)(n_layer=1, n_head=2, n_embd=8, block_size=32, vocab_size=TOK.vocab_size))
    other.save_pretrained(tmp_path / "other")
    TOK.save(tmp_path / "other")
    more = ["--tasks", "samples"] if command == "eval" else []
    assert main([command, str(tmp_path / "other"), "--adapter", str(lora), *more]) == 1
    error = capsys.readouterr().err
    assert "tensor 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight' has shape (2, 16)" in error
    assert "ask for (2, 8)" in error and "Traceback" not in error
    assert main([command, str(base), "--adapter", str(tmp_path / "nowhere"), *more]) == 1
    assert "there is no adapter: expected adapter_config.json" in capsys.readouterr().err


def test_a_quantized_base_says_so(places, tmp_path, capsys):
    base, lora = places
    run(capsys, "quantize", base, "-o", tmp_path / "int8")
    assert main(["generate", str(tmp_path / "int8"), "--adapter", str(lora)]) == 1
    assert "an adapter needs a base with plain weights" in capsys.readouterr().err
