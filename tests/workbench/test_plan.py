"""`minillm plan`: its arithmetic against figures known from elsewhere, what fits against what does not, its outputs."""
import json
from dataclasses import replace

import pytest

from minillm.__main__ import main
from minillm.config import GPTConfig, TrainConfig
from minillm.models.gpt2 import GPT
from minillm.models.quantized import WEIGHTS, quantize
from minillm.train.memory import step_memory
from minillm.workbench.plan import PRESETS, Question, cache_bytes, fitting, plan, serving_memory

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=300)
SETS = ["--set", "n_layer=2", "--set", "n_head=2", "--set", "n_embd=32", "--set", "block_size=32", "--set",
        "vocab_size=300"]


@pytest.mark.parametrize("preset, parameters", [("124M", 124_439_808), ("1.5B", 1_557_611_200), ("7B", 6_658_404_352)])
def test_presets(preset, parameters):
    """The first two are those of Hugging Face's gpt2 and gpt2-xl."""
    found = plan(Question(GPTConfig(**PRESETS[preset]), TrainConfig(batch_size=1)))
    assert found["parameters"] == parameters
    assert found["tokens"]["planned"] == 20 * parameters and found["tokens"]["per_parameter"] == 20
    assert 1 < found["flops"]["training_step"] / found["flops"]["six_n_p"] < 1.6


def test_the_dict_is_json_and_its_parts_add_up():
    found = plan(Question(SMALL, TrainConfig(batch_size=4), memory=10 ** 9))
    assert json.loads(json.dumps(found)) == found
    flops, training = found["flops"], found["memory"]["training"]
    assert sum(sum(phase.values()) for phase in flops["training"].values()) == flops["training_step"]
    assert set(flops["training"]) == {"forward", "backward", "update"}
    assert set(flops["prefill"]) == {"prefill"} and set(flops["decode"]) == {"decode"}
    assert sum(training["at_peak"].values()) == training["peak"]
    for name, size in training["at_peak"].items():
        assert size <= training["sizes"][name]


def test_the_activations_of_a_block_by_name():
    """Of NumPy's ops: qkv keeps its input, attention qkv, out (the input of proj), logsumexp and probabilities, a norm
    the sum and two numbers a row, mlp its input and two of 4 C."""
    found = plan(Question(SMALL, TrainConfig(batch_size=4, backend="numpy")))["memory"]["training"]["block"]
    each, rows, square = 4 * 4 * 32 * 32, 4 * 4 * 32, 4 * 4 * 2 * 32 ** 2
    assert found == {"qkv": each, "attention": 4 * each + 2 * rows + square, "proj": 0, "attention_drop": 0,
                     "ln_2": each + 2 * rows, "mlp": 9 * each, "mlp_drop": 0, "next_norm": each + 2 * rows}


def test_choices_are_ordered_as_they_must_be():
    found = plan(Question(GPTConfig(n_layer=4), TrainConfig(batch_size=4), processes=3))["memory"]["choices"]
    peaks = {(row["precision"], row["recompute"], row["accumulate"]): row["peak"] for row in found}
    for (precision, recompute, accumulate), peak in peaks.items():
        sizes = [peak[n] for n in ("1", "2", "3", "4", "8")]
        assert sizes == sorted(sizes, reverse=True)
        assert peak["1"] <= peaks[precision, recompute, 2]["1"]
        assert peaks[precision, True, accumulate]["1"] <= peaks[precision, False, accumulate]["1"]


def test_what_fits_fits_and_one_more_does_not():
    q = Question(SMALL, TrainConfig(batch_size=4), memory=40 << 20)
    found = fitting(q)
    for recompute, name in ((False, "as planned"), (True, "with recomputation")):
        t = replace(q.train, recompute=recompute)
        batch, length = found["training"][name].values()
        for n, fits in ((batch, True), (batch + 1, False)):
            assert (sum(step_memory(SMALL, replace(t, batch_size=n)).values()) <= q.memory) is fits
        for n, fits in ((length, True), (length + 1, False)):
            c = replace(SMALL, block_size=n)
            assert (sum(step_memory(c, replace(t, batch_size=1)).values()) <= q.memory) is fits
    sequences = found["serving"]["int8"]["sequences"]
    assert sum(serving_memory(SMALL, sequences, "int8").values()) <= q.memory
    assert sum(serving_memory(SMALL, sequences + 1, "int8").values()) > q.memory


def nbytes(weight):
    return weight.nbytes if hasattr(weight, "nbytes") else sum(part.nbytes for part in weight if part is not None)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_serving_holds_what_a_real_model_holds(weights):
    model = quantize(GPT(SMALL), weights)
    planned, cache = serving_memory(SMALL, 3, weights), model.new_cache(3)
    assert planned["weights"] == sum(map(nbytes, model.params.values()))
    assert planned["kv_cache"] == cache.keys.nbytes + cache.values.nbytes
    model.kv_cache, small = "int8", cache_bytes(SMALL, 3, "int8")
    made = model.new_cache(3)
    assert small == sum(array.nbytes for array in (made.keys, made.values, made.key_scales, made.value_scales))


def test_hours_and_money():
    q = Question(SMALL, TrainConfig(batch_size=4), tokens=10 ** 9, here=1e10, price=2.0)
    one, two = plan(q), plan(replace(q, processes=2))
    for device, again in zip(one["devices"], two["devices"]):
        assert device["hours"] == pytest.approx(2 * again["hours"], rel=1e-4)
        assert device["dollars"] == pytest.approx(2 * device["hours"])
    assert one["devices"][-1]["name"] == "this machine"
    assert one["devices"][-1]["hours"] == pytest.approx(one["flops"]["training_step"] * one["tokens"]["steps"] / 3.6e13)


def test_the_command_prints_and_gives_json(capsys, tmp_path):
    assert main(["plan", *SETS, "--memory", "40MiB", "--here", "--price", "1.5", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["fits"]["memory"] == 40 << 20 and found["devices"][0]["price"] == 1.5
    for words in ("of 6 N P", "recompute", "KV cache", "micro-batch", "Chinchilla", "this machine", "logits"):
        assert words in said.err


def test_the_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["plan", *SETS, "--memory", "1G", "--plot", str(tmp_path / "plan.png")]) == 0
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words, said", [
    (["--memory", "much"], "--memory must be a size such as 12GB"), (["--processes", "0"], "must be at least"),
    (["--set", "n_layers=2"], "n_layers"), (["--hours", "1"], "--hours needs --data"), (["--memory", "0"], "--memory"),
    (["--hours", "0"], "--hours must be at least")])
def test_bad_options_are_named(words, said, capsys):
    assert main(["plan", *words]) == 1
    assert said in capsys.readouterr().err
