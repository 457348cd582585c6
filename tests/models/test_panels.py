"""Models whose weights lie in panels: the same bits on every path, what is left as it is, saving."""
from dataclasses import replace

import numpy as np
import pytest
from ending import directory_that_ends
from tolerances import assert_same_bits

from minillm import GPT, GPTConfig, Llama, LlamaConfig
from minillm.generation.text import load_generator
from minillm.kernels.select import choices, select
from minillm.models import quantized
from minillm.models.gemma import Gemma
from minillm.models.olmo2 import Olmo2
from minillm.models.panels import Panels
from minillm.models.quantized import in_panels, out_of_panels, quantize, save_quantized

if "cpu/bf16" not in choices("linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

GPT2 = GPTConfig(n_layer=2, n_head=2, n_embd=74, block_size=70, vocab_size=113)         # nothing fits a panel
LLAMA = LlamaConfig(family="qwen3", n_layer=2, n_head=4, n_kv_head=2, head_dim=20, n_embd=76, n_inner=101,
                    block_size=70, vocab_size=113, qk_norm=True)
FAMILIES = {"gpt2": (GPT, GPT2), "exact GELU": (GPT, replace(GPT2, activation="gelu")),
            "untied": (GPT, replace(GPT2, tied=False)), "relu": (GPT, replace(GPT2, activation="relu")),
            "qwen3": (Llama, LLAMA), "olmo2": (Olmo2, replace(LLAMA, family="olmo2")),
            "gemma2": (Gemma, replace(LLAMA, family="gemma2", qk_norm=False, tied=True))}
CUTS = ([60], [1] * 60, [2, 3, 5, 8, 13, 29], [17, 1, 42])
TOKENS = np.random.default_rng(0).integers(0, 113, (3, 60))
every_form = pytest.mark.parametrize("form", ["float32", "bfloat16"])


def rough(family="gpt2", backend="auto"):
    kind, config = FAMILIES[family]
    model = kind(config, ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size).astype("float32")
    return model


def in_pieces(model, cuts):
    cache, ends = model.new_cache(len(TOKENS)), np.cumsum([0, *cuts])
    return np.concatenate([model.decode(TOKENS[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


def laid_out(model):
    return any(isinstance(value, Panels) for value in model.params.values())


@every_form
@pytest.mark.parametrize("backend", ["auto", "cpu/bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_path_gives_the_bits_of_plain_weights(family, backend, form):
    """Token by token, a few at a time, a prompt at once; forward and losses. Float32 weights that are multiplied in
    bfloat16, and models that no compiled step decodes, are left as they are."""
    plain = quantize(rough(family, backend), form)
    model = in_panels(plain)
    assert laid_out(model) == (family != "relu" and (form, backend) != ("float32", "cpu/bf16"))
    for cuts in CUTS:
        assert_same_bits(in_pieces(model, cuts), in_pieces(plain, cuts), cuts)
    assert_same_bits(model.forward(TOKENS)[0], plain.forward(TOKENS)[0])
    assert_same_bits(model.losses(TOKENS, TOKENS)[0], plain.losses(TOKENS, TOKENS)[0])
    assert in_panels(model) is model


@every_form
def test_panels_are_no_second_copy(form):
    plain = quantize(rough(), form)
    model = in_panels(plain)
    matrices = [value for value in model.params.values() if isinstance(value, Panels)]
    assert len(matrices) == 1 + 4 * GPT2.n_layer
    for name, value in model.params.items():
        back = out_of_panels(model).params[name]
        assert_same_bits(*(part.values if form == "bfloat16" and isinstance(value, Panels) else part
                           for part in (back, plain.params[name])))


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_float32_weights_that_are_bfloat16_take_half(family):
    """As the files of most models have them: the bits of the float32 model. One number that is none, and they stay."""
    model = rough(family)
    model.params.flat.view("uint32")[:] &= 0xFFFF0000
    halves = in_panels(model)
    assert {value.form for value in halves.params.values() if isinstance(value, Panels)} == {"bfloat16"}
    for cuts in CUTS:
        assert_same_bits(in_pieces(halves, cuts), in_pieces(model, cuts), cuts)
    assert_same_bits(halves.forward(TOKENS)[0], model.forward(TOKENS)[0])
    model.params[model.head].view("uint32")[-1, -1] |= 1
    assert {value.form for value in in_panels(model).params.values() if isinstance(value, Panels)} == {"float32"}


def test_int8_and_int4_are_left_as_they_are():
    wide = GPT(replace(GPT2, n_embd=64))
    for model in (quantize(rough()), quantize(rough(), arithmetic="float"), quantize(wide, "int4")):
        assert in_panels(model) is model


def test_numpy_and_float64_are_left_as_they_are():
    for model in (rough(backend="numpy"), GPT(GPT2, dtype="float64")):
        assert in_panels(model) is model


def test_settings_stay():
    model = rough()
    model.known, model.kv_cache = 100, "int8"
    assert in_panels(model).known == 100 and in_panels(model).kv_cache == "int8"


def test_without_memory_for_both_weights_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(quantized, "free_bytes", lambda: 10_000)
    assert not laid_out(in_panels(rough()))
    monkeypatch.setattr(quantized, "free_bytes", lambda: None)                              # unknown
    assert laid_out(in_panels(rough()))


def test_a_generator_decodes_by_panels(tmp_path):
    directory = directory_that_ends(tmp_path, end="</s>", config="</s>")
    generator = load_generator(directory, draft=directory)
    assert laid_out(generator.model) and laid_out(generator.draft)


def test_a_model_in_panels_is_saved_as_it_was(tmp_path):
    model = quantize(rough(), "bfloat16")
    for name, each in (("plain", model), ("panels", in_panels(model))):
        save_quantized(tmp_path / name, each)
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "panels/model.safetensors").read_bytes()
