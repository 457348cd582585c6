"""Quantized Llamas: the rounding of a matrix by hand in NumPy, every code path the same bits, files, the command."""
import json

import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_same_bits

from minillm import Llama, LlamaConfig, Tokenizer, load_model, select
from minillm.__main__ import main
from minillm.models.quantized import Quantized, dequantized_model, quantize, save_quantized

SHAPE = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "head_dim": 8, "n_embd": 48, "n_inner": 64, "block_size": 90,
         "vocab_size": 203}
FAMILIES = {"llama": {}, "qwen2": {"family": "qwen2", "qkv_bias": True, "tied": True},
            "qwen3": {"family": "qwen3", "qk_norm": True}, "mistral": {"family": "mistral", "window": 7}}
FORMS = [("int8", 0), ("int8", 16), ("bfloat16", 0), ("int4", 16)]
every_form = pytest.mark.parametrize("weights, group", FORMS, ids=str)


def rough(family="llama", backend="auto"):
    model = Llama(LlamaConfig(**SHAPE, **FAMILIES[family]), ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size).astype("float32")
    return model


def some_tokens(B, T):
    return np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (B, T))


def in_pieces(model, tokens, pieces):
    cache, ends = model.new_cache(len(tokens)), np.cumsum([0, *pieces])
    return np.concatenate([model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


def by_hand(weight, weights, group):
    """A weight (out, in) as it must come back: scales along the inputs of each output, ties to even; or 8 bits kept."""
    if weights == "bfloat16":
        bits = weight.view(np.uint32).astype(np.uint64)
        return (((bits + 0x7fff + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)).view(np.float32)
    rows = weight.reshape(len(weight), -1, group or weight.shape[1])
    scales = np.abs(rows).max(axis=2, keepdims=True) / np.float32(7 if weights == "int4" else 127)
    return (np.round(rows / scales).astype(np.float32) * scales).reshape(weight.shape)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@every_form
def test_every_matrix_is_rounded_along_its_inputs(family, weights, group):
    model = rough(family)
    stored = quantize(model, weights, group)
    plain, seen = dequantized_model(stored).params, 0
    for name, array in model.params.items():
        want = by_hand(array, weights, group) if array.ndim == 2 else array
        assert np.array_equal(plain[name], want), name
        seen += isinstance(stored.params[name], Quantized)
    assert seen == 2 * 7 + 2 - model.config.tied


@pytest.mark.parametrize("backend, family", [(backend, family) for backend in BACKENDS for family in FAMILIES
                                             if backend != "numpy" or family == "qwen2"])
@every_form
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_every_code_path_gives_the_same_bits(backend, family, weights, group, arithmetic):
    """With NumPy an activation may be rounded to the next whole number, where BLAS gave it another last bit."""
    model, tokens = quantize(rough(family, backend), weights, group, arithmetic), some_tokens(2, 40)
    rounds = arithmetic == "integer" and weights != "bfloat16"
    want = (model if rounds else dequantized_model(model)).forward(tokens)[0]
    written = Llama(model.config, ops=model.ops._replace(decode_step=None), params=model.params)
    paths = [(model, pieces) for pieces in ([1] * 40, [4] * 10, [40], [30] + [1] * 10)] + [(written, [1] * 9 + [31])]
    for each, pieces in paths:
        got = in_pieces(each, tokens, pieces)
        if backend == "numpy":
            assert np.abs(got - want).max() < (0.02 * np.abs(want).max() if rounds else 1e-4)
        else:
            assert_same_bits(got, want)


@every_form
def test_a_directory_comes_back(tmp_path, weights, group):
    model = quantize(rough("qwen2"), weights, group)
    save_quantized(tmp_path, model, 5)
    loaded = load_model(tmp_path, weights=weights)
    assert loaded.config == model.config and isinstance(loaded, Llama)
    for name, value in model.params.items():
        again = loaded.params[name]
        for got, want in zip(again, value) if isinstance(value, Quantized) else [(again, value)]:
            assert (got is want is None) or (got.dtype == want.dtype and np.array_equal(got, want)), name
    assert_same_bits(load_model(tmp_path, weights="float32").params.flat, dequantized_model(model).params.flat)


def test_int8_is_a_format_of_our_own_and_its_faults_are_named(tmp_path):
    save_quantized(tmp_path, quantize(rough()))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "minillm-int8" and config["quantization_config"]["model_type"] == "llama"
    for method, words in ((None, "quantization_config"), (config["quantization_config"] | {"bits": 3}, "quantization_"),
                          (config["quantization_config"] | {"model_type": "gpt2"}, "wte.weight: exp")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": method}))
        with pytest.raises(ValueError, match=words):
            load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10 ** 9}))
    with pytest.raises(ValueError, match="1000000000 layers"):
        load_model(tmp_path)


def test_groups_must_divide_the_inputs_of_every_matrix():
    with pytest.raises(ValueError, match="divides the inputs of each matrix, 32, 48, 64: got 32"):
        quantize(rough(), group=32)


def test_transformers_reads_bfloat16(tmp_path):
    auto, torch = pytest.importorskip("transformers").AutoModelForCausalLM, pytest.importorskip("torch")
    model, tokens = quantize(rough("qwen3"), "bfloat16"), some_tokens(2, 20)
    save_quantized(tmp_path, model)
    theirs = auto.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(torch.from_numpy(tokens)).logits.numpy()
    assert np.abs(in_pieces(model, tokens, [1] * 20) - want).max() < 1e-4


@pytest.mark.parametrize("weights", ["int8", "bfloat16", "int4"])
def test_the_command_and_what_reads_its_result(tmp_path, capsys, weights):
    tokenizer = Tokenizer.train(["the cat sat on the mat, the dog on the log. " * 20], 280, stop_early=True)
    config = LlamaConfig(**SHAPE | {"vocab_size": tokenizer.vocab_size})
    Llama(config).save_pretrained(tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    (tmp_path / "text.txt").write_text("the cat sat on the log. " * 30)
    out, data = str(tmp_path / weights), ["--data", str(tmp_path / "text.txt")]
    assert main(["quantize", str(tmp_path / "base"), "-o", out, "--weights", weights, *data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    most, size, error = {"bfloat16": (0.01, 0.51, 0.01), "int8": (0.01, 0.35, 0.02), "int4": (0.2, 0.25, 0.2)}[weights]
    assert 0 < abs(found["bits_per_byte"]["change"]) < most and len(found["tensors"]) == 2 * 7 + 2
    assert found["bytes_after"] < size * found["bytes_before"]
    assert all(0 < row["error"] <= row["worst"] < error for row in found["tensors"].values())
    assert main(["generate", out, "-p", "the cat", "-n", "4", "--temperature", "0"]) == 0
    assert main(["eval", out, "--tasks", "bpb", *data]) == 0
