"""What quantization costs: a small trained model, the report and the command."""
import json
from pathlib import Path

import numpy as np
import pytest
from models.test_quantized import every_form, rough_model

from minillm import ops as reference
from minillm.__main__ import main
from minillm.config import GPTConfig
from minillm.evaluate.perplexity import bits_per_byte, surprises
from minillm.evaluate.quantization import errors
from minillm.models.gpt2 import GPT
from minillm.models.quantized import quantize
from minillm.tokenizer import Tokenizer
from minillm.train.optim import AdamW


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with a model that has learned a little of our own source code, and a text it has not seen."""
    folder = tmp_path_factory.mktemp("trained")
    sources = ("attention", "layernorm", "linear", "gelu")
    texts = [Path(reference.__file__).with_name(f"{op}.py").read_text() for op in sources]
    tokenizer = Tokenizer.train(texts, vocab_size=300)
    ids = np.array(tokenizer.encode("".join(texts)))
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=tokenizer.vocab_size))
    optimizer, rng = AdamW(model.params, lr=3e-3, ops=model.ops), np.random.default_rng(0)
    for _ in range(240):
        starts = rng.integers(0, len(ids) - 65, 8)
        rows = np.array([ids[start:start + 65] for start in starts])
        loss, grads = model.loss_and_grads(rows[:, :-1], rows[:, 1:])
        optimizer.step(grads)
    assert loss < 3.2                                       # log(300) = 5.7 before
    model.save_pretrained(folder / "model")
    tokenizer.save(folder / "model")
    (folder / "unseen.txt").write_text(Path(reference.__file__).with_name("mlp.py").read_text())
    return folder


@every_form
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_bits_per_byte_hardly_change(trained, tmp_path, capsys, weights, group, arithmetic):
    arguments = ["quantize", str(trained / "model"), "-o", str(tmp_path / "out"), "--weights", weights, "--json",
                 "--data", str(trained / "unseen.txt")]
    assert main(arguments + ["--group", str(group)] * bool(group) + ["--arithmetic", arithmetic]) == 0
    results = json.loads(capsys.readouterr().out)
    bits = results["bits_per_byte"]
    assert 0 < abs(bits["change"]) < (0.05 if weights == "int4" else 0.005)
    assert bits["before"] > 1 and bits["bytes"] > 1000
    assert results["arithmetic"] == ("float" if weights == "bfloat16" else arithmetic)
    assert (bits["change"] != bits["weights_only"]) == (results["arithmetic"] == "integer")
    assert abs(bits["change"] - bits["weights_only"]) < 0.001              # what rounding activations costs
    assert len(results["tensors"]) == 9
    assert results["bytes_after"] < (0.55 if weights == "bfloat16" else 0.4) * results["bytes_before"]
    for row in results["tensors"].values():
        assert 0 < row["error"] <= row["worst"] < (0.3 if weights == "int4" else 0.02)
    assert main(["generate", str(tmp_path / "out"), "-p", "def", "-n", "5"]) == 0


def test_a_wrong_scale_is_seen(trained):
    """The measure can fail: one matrix of nine that is a quarter too large changes more than all the rounding."""
    tokenizer, text = Tokenizer.from_pretrained(trained / "model"), (trained / "unseen.txt").read_text()
    model = quantize(GPT.from_pretrained(trained / "model"))
    before = bits_per_byte(surprises(model, tokenizer, [text]))
    model.params["wte.weight"].scales[:] *= 1.25
    assert abs(bits_per_byte(surprises(model, tokenizer, [text])) / before - 1) > 0.005


def test_smaller_groups_have_smaller_errors():
    model = rough_model("numpy")
    coarse, fine = (errors(model, quantize(model, group=group)) for group in (0, 8))
    assert all(fine[name]["error"] < coarse[name]["error"] < 0.02 for name in coarse)


def test_the_page_and_bad_commands(trained, tmp_path, capsys):
    model = str(trained / "model")
    assert main(["quantize", model, "-o", str(tmp_path / "out")]) == 0
    page = capsys.readouterr().out
    assert "matmuls: integers" in page
    assert "h.0.mlp.c_fc.weight" in page and "give a text with --data" in page and "times as much" in page
    for arguments, words in ((["-o", model], "another directory"), (["--group", "3"], "group"),
                             (["--data", str(tmp_path / "none")], "none")):
        assert main(["quantize", model, "-o", str(tmp_path / "x"), *arguments]) == 1
        assert words in capsys.readouterr().err


TINY = "--set n_layer=1 --set n_head=1 --set n_embd=16 --set block_size=16 --set train.steps=1"


def test_the_split_of_any_run_made_here_is_found(tmp_path, capsys):
    """Of a pretrained run, of one fine-tuned from it, of one trained on shards that lie elsewhere."""
    text, base = tmp_path / "text", tmp_path / "base"
    text.mkdir()
    for i in range(20):
        (text / f"{i}.txt").write_text(f"Hen number {i} says cluck to the {i} others. " * 20)
    assert main(f"train --data {text} --out {base} --vocab-size 300 {TINY}".split()) == 0
    assert main(f"sft {base} --data addition --out {tmp_path}/sft --set train.steps=1".split()) == 0
    assert main(f"data tokenize {text} -o {tmp_path}/shards --tokenizer {base}".split()) == 0
    assert main(f"train --data {tmp_path}/shards --out {tmp_path}/elsewhere {TINY}".split()) == 0
    for run in ("base", "sft", "elsewhere"):
        capsys.readouterr()
        assert main(["quantize", str(tmp_path / run), "-o", str(tmp_path / f"{run}-int8"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["bits_per_byte"]["bytes"] > 500, run
