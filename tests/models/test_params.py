"""The flat buffer and its views; clipping and the schedule; the configurations and their errors."""
import dataclasses
import math

import numpy as np
import pytest
from tolerances import assert_close

from minillm.config import GPTConfig, TrainConfig, load_toml, parse_setting
from minillm.train.optim import AdamW, clip_grad_norm, clip_scale, cosine_schedule, global_norm
from minillm.models.params import Params, gpt_shapes

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=6, block_size=5, vocab_size=11)


def numbered():
    """Params whose every number is its own position in the buffer."""
    params = Params(gpt_shapes(CONFIG), "float64")
    params.flat[:] = np.arange(params.flat.size)
    return params


# ---- Params -------------------------------------------------------------------------------------------------------

def test_views_share_and_cover_the_buffer_once():
    params = numbered()
    assert sorted(np.concatenate([x.ravel() for _, x in params.items()]).tolist()) == params.flat.tolist()
    for name, x in params.items():
        assert x.base is params.flat and x.flags.c_contiguous and x.shape == gpt_shapes(CONFIG)[name]
    params["ln_f.bias"][:] = -1
    assert (params.flat == -1).sum() == CONFIG.n_embd


def test_matrices_first_and_each_parameter_is_decayed_or_not():
    params = numbered()
    decayed = {name for name, x in params.items() if np.all(x < params.n_decayed)}
    spared = {name for name, x in params.items() if np.all(x >= params.n_decayed)}
    assert decayed | spared == set(params) and not decayed & spared
    assert decayed == {name for name, x in params.items() if x.ndim == 2}
    assert params.n_decayed == sum(x.size for x in params.views.values() if x.ndim == 2)


def test_sizes_are_gpt2s():
    """GPT-2's smallest model has 124,439,808 parameters."""
    assert sum(math.prod(shape) for shape in gpt_shapes(GPTConfig()).values()) == 124_439_808


def test_locate_inverts_the_layout():
    params = numbered()
    for index in range(0, params.flat.size, 7):
        name, inside = params.locate(index)
        assert params[name][inside] == index
    assert params.locate(params.flat.size - 1)[0] == list(params)[-1]
    with pytest.raises(IndexError):
        params.locate(params.flat.size)


def test_copies_are_separate():
    params = numbered()
    zeros, copy = params.zeros_like("float32"), params.astype("float32")
    assert not zeros.flat.any() and zeros.flat.dtype == copy.flat.dtype == "float32"
    assert np.array_equal(copy["wte.weight"], params["wte.weight"]) and copy.n_decayed == params.n_decayed
    copy.flat[:] = 0
    assert params.flat.any() and len(copy) == len(params) and list(copy.keys()) == list(params)


# ---- the optimizer ------------------------------------------------------------------------------------------------

def test_optimizer_decays_matrices_only():
    params = numbered()
    params.flat[:] = 1
    AdamW(params, lr=0.5, weight_decay=0.1).step(params.zeros_like())
    for name, x in params.items():
        assert_close(name, x, np.full(x.shape, 0.95 if x.ndim == 2 else 1.0), "by hand")


def test_first_step_moves_by_the_learning_rate():
    """After one step mhat / sqrt(vhat) is the sign of the gradient."""
    params = numbered()
    start, grads = params.flat.copy(), params.zeros_like()
    grads.flat[:] = np.where(np.arange(start.size) % 2, 3.0, -0.001)
    optimizer = AdamW(params, lr=0.25, eps=0.0, weight_decay=0.0)
    optimizer.step(grads, scale=0.5)
    assert_close("w", params.flat, start - 0.25 * np.sign(grads.flat), "by hand")
    optimizer.step(grads, lr=0.0)
    assert_close("w", params.flat, start - 0.25 * np.sign(grads.flat), "by hand")
    assert optimizer.steps == 2


@pytest.mark.parametrize("size", [10, 2 ** 16 - 1, 2 ** 16, 200_001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_global_norm(size, dtype):
    grads = Params({"a": (size,)}, dtype)
    grads.flat[:] = np.random.default_rng(0).standard_normal(size)
    assert global_norm(grads) == pytest.approx(np.linalg.norm(grads.flat.astype("float64")), rel=1e-6)


def test_global_norm_of_large_float32_numbers():
    """1e20 fits into float32, its square does not; a small buffer gets this right."""
    with np.errstate(over="ignore"):
        for size in (100, 2 ** 17):
            grads = Params({"a": (size,)})
            grads.flat[:] = 1e20
            assert global_norm(grads) == pytest.approx(1e20 * math.sqrt(size), rel=1e-6)


@pytest.mark.parametrize("max_norm, factor", [(1.0, 0.2), (5.0, 1.0), (10.0, 1.0), (0.0, 1.0)])
def test_clipping(max_norm, factor):
    grads = Params({"a": (2,), "b": (1, 1)}, "float64")
    grads.flat[:] = [0.0, 3.0, 4.0]
    assert clip_grad_norm(grads, max_norm) == 5.0
    assert_close("grads", grads.flat, factor * np.array([0.0, 3.0, 4.0]), "by hand")
    assert clip_scale(5.0, max_norm) == pytest.approx(factor)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [10, 2 ** 17])
def test_clipping_refuses_what_is_not_finite(value, size):
    grads = Params({"a": (size,)})
    grads.flat[5] = value
    with pytest.raises(ValueError, match="grads must be finite"):
        clip_grad_norm(grads, 1.0)
    assert not grads.flat[:5].any()


def test_schedule():
    """Warm-up from lr/warmup to lr, half a cosine down to min_lr, and flat after the end."""
    def rate(step):
        return cosine_schedule(step, warmup=10, steps=110, lr=1.0, min_lr=0.1)
    assert rate(0) == pytest.approx(0.1) and rate(4) == pytest.approx(0.5)
    assert rate(9) == rate(10) == 1.0
    assert rate(35) == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2))
    assert rate(60) == pytest.approx(0.55) and rate(110) == rate(500) == pytest.approx(0.1)
    assert all(rate(step) > rate(step + 1) for step in range(10, 110))


def test_schedule_without_warm_up_or_cosine():
    assert cosine_schedule(0, 0, 10, 1.0, 0.0) == 1.0
    assert cosine_schedule(10, 10, 10, 1.0, 0.5) == 1.0
    assert cosine_schedule(11, 10, 10, 1.0, 0.5) == pytest.approx(0.5)


# ---- configurations -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config, field, value", [
    (GPTConfig, "n_layer", 0), (GPTConfig, "n_head", -1), (GPTConfig, "n_embd", 7.0), (GPTConfig, "n_embd", 770),
    (GPTConfig, "block_size", "9"), (GPTConfig, "vocab_size", True), (GPTConfig, "dropout", 1.0),
    (GPTConfig, "dropout", -0.1), (GPTConfig, "dropout", math.nan), (GPTConfig, "layer_norm_epsilon", 0.0),
    (TrainConfig, "steps", 0), (TrainConfig, "accumulate", 1.5), (TrainConfig, "warmup", -1), (TrainConfig, "lr", 0.0),
    (TrainConfig, "lr", math.nan), (TrainConfig, "lr", "3e-4"), (TrainConfig, "beta2", 1.0),
    (TrainConfig, "clip", -1.0), (TrainConfig, "eps", 0.0), (TrainConfig, "backend", ""), (TrainConfig, "backend", 3),
], ids=lambda value: getattr(value, "__name__", repr(value)))
def test_bad_settings_are_named(config, field, value):
    with pytest.raises(ValueError, match=field):
        config(**{field: value})


def test_configurations_cannot_change_or_grow():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.n_layer = 3
    with pytest.raises(TypeError, match="n_layers"):
        GPTConfig(n_layers=3)
    assert GPTConfig(dropout=0).dropout == 0


@pytest.mark.parametrize("setting, expected", [
    ("train.lr=3e-4", ("train", "lr", 3e-4)), ("optim.lr=1", ("train", "lr", 1.0)), ("lr=0.1", ("train", "lr", 0.1)),
    ("n_layer=3", ("model", "n_layer", 3)), ("model.dropout=0.1", ("model", "dropout", 0.1)),
    ("backend=cpu", ("train", "backend", "cpu")), (" train.steps = 5", ("train", "steps", 5)),
])
def test_parse_setting(setting, expected):
    got = parse_setting(setting)
    assert got == expected and type(got[2]) is type(expected[2])


@pytest.mark.parametrize("setting, words", [
    ("lr", "NAME=VALUE"), ("train.lrr=1", "unknown key train.lrr: expected one of .*lr"), ("foo=1", "foo"),
    ("data.lr=1", "unknown table 'data'"), ("model.lr=1", "unknown key model.lr"),
    ("steps=1.5", "steps must be of type int"), ("lr=fast", "lr must be of type float"), ("=3", "unknown key"),
])
def test_parse_setting_errors(setting, words):
    with pytest.raises(ValueError, match=words):
        parse_setting(setting)


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_load_toml(tmp_path):
    model, train = load_toml(write(tmp_path, "[model]\nn_layer = 3\n[train]\nlr = 1e-3\nbackend = 'cpu'\n"))
    assert (model, train) == ({"n_layer": 3}, {"lr": 1e-3, "backend": "cpu"})
    assert load_toml(write(tmp_path, "")) == ({}, {})


@pytest.mark.parametrize("text, words", [
    ("[model\n", "config.toml: not valid TOML"), ("[modell]\n", "config.toml: unknown entry 'modell'"),
    ("train = 3\n", "config.toml: unknown entry 'train'"), ("[train]\nrate = 1\n", "unknown key train.rate"),
])
def test_load_toml_errors(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        load_toml(write(tmp_path, text))


def test_load_toml_names_the_file_of_an_unknown_key(tmp_path):
    with pytest.raises(ValueError, match="config.toml.*train.rate"):
        load_toml(write(tmp_path, "[train]\nrate = 1\n"))


def test_load_toml_of_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("size", [0, 1, 5, 3_000_000])
def test_a_cleared_buffer_is_zeros_again(size):
    """Large or small, whole pages or not; the views see it, too."""
    params = Params({"a": (size,)}, "float32")
    params.flat[:] = 1
    params.clear()
    assert not params["a"].any()
    params.flat[:] = 2
    assert params.flat.sum() == 2 * size
