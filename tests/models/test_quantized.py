"""Quantized weights: rounding within half a step, decoding the same on every code path, files."""
import json

import numpy as np
import pytest
from cases import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_same_bits

from minillm.config import GPTConfig
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT
from minillm.models.quantized import (
    ARITHMETIC,
    Quantized,
    dequantized,
    dequantized_model,
    quantize,
    save_quantized,
    to_bfloat16,
    to_int4,
    to_int8,
)
from minillm.storage.safetensors import read_safetensors, write_safetensors

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=48, block_size=90, vocab_size=203)
FORMS = [("int8", 0), ("int8", 16), ("bfloat16", 0), ("int4", 16)]
FC = "transformer.h.1.mlp.c_fc.weight"
every_form = pytest.mark.parametrize("weights, group", FORMS, ids=str)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
SETTINGS = settings(derandomize=True, deadline=None, max_examples=50)


def rough_model(backend="auto", config=CONFIG):
    model = GPT(config, ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size).astype("float32")
    return model


def some_tokens(B, T):
    return np.random.default_rng(0).integers(0, CONFIG.vocab_size, (B, T))


def in_pieces(model, tokens, pieces):
    """Logits of all tokens, read by the cache in pieces of these sizes."""
    cache, ends = model.new_cache(len(tokens)), np.cumsum([0, *pieces])
    return np.concatenate([model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


# ---- rounding -----------------------------------------------------------------------------------------------------

@SETTINGS
@given(st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(-38, 36), st.integers(0, 99))
def test_int8_is_off_by_half_a_step_at_most(groups, columns, per_channel, exponent, seed):
    """And the largest weight of a group is 127 steps; a channel of zeros stays one. Denormal weights, too."""
    matrix = (10.0 ** exponent * np.random.default_rng(seed).standard_normal((8 * groups, columns))).astype("float32")
    matrix[:, 0] = 0
    stored = to_int8(matrix, 0 if per_channel else 8)
    steps = np.repeat(stored.scales, len(matrix) // len(stored.scales), axis=0).astype("float64")
    assert stored.scales.shape == (1 if per_channel else groups, columns)
    assert np.all(np.abs(dequantized(stored) - matrix.astype("float64")) <= (0.5 + 1e-4) * steps + 1e-44)
    assert np.all(stored.values[:, 0] == 0) and np.abs(stored.values.astype(int)).max() <= 127


def test_int8_by_hand():
    """Channel 0: step 1. Channel 1: step 0.5 in its first group, 2 in the second. Ties go to the even number."""
    matrix = np.zeros((16, 2), "float32")
    matrix[:, 0] = [127, 1, -1, 0.4, 0.6, 2.5, 3.5, -127] + [0] * 7 + [127]
    matrix[:8, 1], matrix[8:, 1] = 63.5, -254
    stored = to_int8(matrix, 8)
    assert stored.values[:8, 0].tolist() == [127, 1, -1, 0, 1, 2, 4, -127]
    assert stored.values[8:, 1].tolist() == [-127] * 8
    assert stored.scales.tolist() == [[1, 0.5], [1, 2]]


def test_int4_by_hand():
    """Steps of 1, of 0.5 and of 2 again; a byte holds two inputs, the first in its low half, each with its sign."""
    matrix = np.zeros((16, 2), "float32")
    matrix[:, 0] = [7, 1, -1, 0.4, 0.6, 2.5, 3.5, -7] + [0] * 7 + [7]
    matrix[:8, 1], matrix[8:, 1] = 3.5, -14
    stored = to_int4(matrix, 8)
    assert stored.values[:4, 0].tolist() == [0x17, 0x0f, 0x21, 0x94] and stored.values.dtype == np.uint8
    assert stored.scales.tolist() == [[1, 0.5], [1, 2]]
    assert dequantized(stored)[:8, 0].tolist() == [7, 1, -1, 0, 1, 2, 4, -7]
    assert dequantized(stored)[:, 1].tolist() == [3.5] * 8 + [-14] * 8


def test_bfloat16_rounds_as_others_do():
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(0).integers(0, 2 ** 32, 100_000, dtype=np.uint32).view("float32")
    numbers = np.append(numbers[np.abs(numbers) < 3e38], [0.0, -0.0, 1 + 2 ** -8, 1 + 3 * 2 ** -8]).astype("float32")
    want = torch.from_numpy(numbers).to(torch.bfloat16).float().numpy()
    assert_same_bits(dequantized(to_bfloat16(numbers[:, None]))[:, 0], want)


# ---- decoding -----------------------------------------------------------------------------------------------------

def nearly(got, want):
    assert np.abs(got - want).max() < 1e-4


def within_a_rounding(got, want):
    """An activation that BLAS gives another last bit may be rounded to the next whole number: 1/127 of its block."""
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


@every_form
@every_backend
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_every_code_path_gives_the_same_bits(backend, weights, group, arithmetic):
    """Token by token, a few at a time, a long prompt: the compiled step, its written-out twin (which takes integers by
    NumPy's definition), and in float32 a plain model with the dequantized weights. NumPy's BLAS has an order of its
    own: nearly."""
    model, tokens = quantize(rough_model(backend), weights, group, arithmetic), some_tokens(2, 60)
    rounds = arithmetic == "integer" and weights != "bfloat16"
    want = (model if rounds else dequantized_model(model)).forward(tokens)[0]
    compare = assert_same_bits if backend != "numpy" else within_a_rounding if rounds else nearly
    for pieces in ([1] * 60, [4] * 15, [60], [40] + [1] * 20):
        compare(in_pieces(model, tokens, pieces), want)
    written = GPT(CONFIG, ops=model.ops._replace(decode_step=None), params=model.params)
    compare(in_pieces(written, tokens, [1] * 60), want)


@every_form
def test_a_chunked_prefill(weights, group):
    """Only the last logits, none of the pieces before; a prompt that does not fit leaves the cache as it was."""
    model, tokens = quantize(rough_model(), weights, group), some_tokens(3, 50)
    cache, whole = model.new_cache(3), in_pieces(model, tokens, [50])
    with pytest.raises(ValueError, match="block_size 90"):
        model.decode(some_tokens(3, 91), cache)
    assert cache.length == 0
    last = model.decode(tokens, cache, last=True)
    assert last.shape == (3, 1, CONFIG.vocab_size)
    if model.ops.decode_step:
        assert_same_bits(last, whole[:, -1:])
    assert cache.lengths.tolist() == [50] * 3


@every_form
def test_a_row_does_not_depend_on_the_others(weights, group):
    model, tokens = quantize(rough_model(), weights, group), some_tokens(8, 5)
    want = in_pieces(model, tokens, [1] * 5)
    for rows in (slice(0, 1), slice(2, 5), slice(7, 8)):
        got = in_pieces(model, tokens[rows], [1] * 5)
        if model.ops.decode_step:
            assert_same_bits(got, want[rows], rows)


@pytest.mark.parametrize("weights, allowed", [("bfloat16", 0.01), ("int8", 0.03), ("int4", 0.5)])
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_logits_stay_near_those_of_float32(weights, allowed, arithmetic):
    """Relative to the largest logit. A weight is off by 2^-9 of itself at most, or by 1 / 254 of its channel's largest;
    such errors are random, and a sum of K of them grows no faster than the sum itself."""
    model, tokens = rough_model(), some_tokens(2, 60)
    want = model.forward(tokens)[0]
    got = in_pieces(quantize(model, weights, arithmetic=arithmetic), tokens, [1] * 60)
    assert 0 < np.abs(got - want).max() <= allowed * np.abs(want).max()


@pytest.mark.skipif("cpu" not in BACKENDS, reason="kernels are not built")
def test_a_prefill_in_bfloat16_stays_near_steps_in_float():
    """select("cpu/bf16") rounds activations, too, for prompts: 2^-8 of each product."""
    model, tokens = quantize(rough_model("cpu/bf16"), "bfloat16"), some_tokens(2, 60)
    steps, prompt = in_pieces(model, tokens, [1] * 60), in_pieces(model, tokens, [60])
    assert 0 < np.abs(steps - prompt).max() <= 0.01 * np.abs(steps).max()


def test_bad_tokens_are_named():
    model = quantize(rough_model())
    for tokens, words in ((some_tokens(1, 3) + 203, r"tokens must be in \[0, 203\)"),
                          (np.array([[-1]]), "tokens must be in"), (np.ones((1, 40), int) * -1, "tokens must be in"),
                          (np.ones((1, 40)), "integers"), (some_tokens(1, 91), "block_size 90")):
        with pytest.raises(ValueError, match=words):
            model.decode(tokens, model.new_cache(1))


@pytest.mark.parametrize("arguments, words", [
    ({"weights": "int2"}, "weights must be one of"), ({"group": 12}, "group must be"), ({"group": -8}, "group must be"),
    ({"group": 32}, "divides the inputs of each matrix, 48, 192"),
    ({"weights": "bfloat16", "group": 16}, "group is for int8 and int4"),
    ({"arithmetic": "vnni"}, "arithmetic must be one of integer, float"),
], ids=str)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        quantize(rough_model("numpy"), **arguments)


# ---- files --------------------------------------------------------------------------------------------------------

@every_form
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_a_directory_comes_back(tmp_path, weights, group, arithmetic):
    model = quantize(rough_model(), weights, group, arithmetic)
    save_quantized(tmp_path, model)
    loaded = GPT.from_pretrained(tmp_path, weights=weights)
    assert weights == "bfloat16" or {type(loaded.params[name]) for name in loaded.params} == {
        np.ndarray, ARITHMETIC[arithmetic]}
    for name, value in model.params.items():
        again = loaded.params[name]
        for got, want in zip(again, value) if isinstance(value, Quantized) else [(again, value)]:
            assert (got is want is None) or (got.dtype == want.dtype and np.array_equal(got, want)), name
    whole = GPT.from_pretrained(tmp_path, weights="float32")
    assert_same_bits(whole.params.flat, dequantized_model(model).params.flat)
    tokens = some_tokens(1, 4)
    assert_same_bits(in_pieces(loaded, tokens, [1] * 4), in_pieces(model, tokens, [1] * 4))


def test_int8_directories_load_as_int8_and_are_small(tmp_path):
    save_quantized(tmp_path / "int8", quantize(rough_model()))
    rough_model().save_pretrained(tmp_path / "float32")
    sizes = [(tmp_path / name).stat().st_size for name in ("int8/model.int8.safetensors",
                                                           "float32/model.safetensors")]
    assert sizes[0] < 0.4 * sizes[1]
    assert isinstance(GPT.from_pretrained(tmp_path / "int8").params["wte.weight"], Quantized)
    assert isinstance(GPT.from_pretrained(tmp_path / "float32", weights="bfloat16").params["wte.weight"], Quantized)


def test_transformers_reads_bfloat16(tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    model, tokens = quantize(rough_model(), "bfloat16"), some_tokens(2, 20)
    save_quantized(tmp_path, model)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(torch.from_numpy(tokens)).logits.numpy()
    assert np.abs(in_pieces(model, tokens, [1] * 20) - want).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", ["AutoModelForCausalLM", "AutoModel", "GPT2LMHeadModel"])
def test_transformers_refuses_int8(tmp_path, cls):
    """Not a model with random weights and a warning."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    save_quantized(tmp_path, quantize(rough_model()))
    with pytest.raises((ValueError, OSError, KeyError), match="minillm-int8|model.safetensors"):
        getattr(transformers, cls).from_pretrained(tmp_path)


def test_int8_is_said_in_config_and_by_the_file(tmp_path):
    save_quantized(tmp_path, quantize(rough_model()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.int8.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "minillm-int8" and config["quantization_config"]["model_type"] == "gpt2"
    method = config["quantization_config"]
    del method["arithmetic"]                                            # as files had it before: still read
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(GPT.from_pretrained(tmp_path).params["wte.weight"]) is Quantized
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": method | {"arithmetic": "i"}}))
    with pytest.raises(ValueError, match="arithmetic 'i': expected one of integer, float"):
        GPT.from_pretrained(tmp_path)
    for method in (None, {"quant_method": "gptq", "bits": 8, "model_type": "gpt2"}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": method}))
        with pytest.raises(ValueError, match="quantization_config = .* is not supported"):
            GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop("transformer.h.0.attn.c_attn.weight.scales"), "c_attn.weight.scales' is missing"),
    (lambda t: t.pop("transformer.h.0.attn.c_attn.weight"), "h.0.attn.c_attn.weight: expected"),
    (lambda t: t.update({"transformer.wte.weight.scales": np.ones((1, 5), "float32")}), r"expected \(G, 203\)"),
    (lambda t: t.update({FC + ".scales": np.ones((5, 192), "float32")}), r"expected \(G, 192\)"),
    (lambda t: t.update({FC + ".scales": np.full((1, 192), np.nan, "float32")}), "NaN"),
    (lambda t: t.update({FC: np.ones((48, 192), "float32")}), "has dtype float32"),
    (lambda t: t.update({FC: np.ones((48, 191), "int8")}), "expected .48, 192"),
    (lambda t: t.update({"transformer.ln_f.bias": np.full(48, np.inf, "float32")}), "ln_f.bias' holds NaN or inf"),
], ids=range(8))
def test_damaged_files_are_named(tmp_path, change, words):
    save_quantized(tmp_path, quantize(rough_model("numpy")))
    path = tmp_path / "model.int8.safetensors"
    tensors = {name: np.array(array) for name, array in read_safetensors(path)[0].items()}
    change(tensors)
    write_safetensors(path, tensors)
    with pytest.raises(ValueError, match=words):
        GPT.from_pretrained(tmp_path)
