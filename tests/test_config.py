"""The configurations: settings out of range, unknown names, TOML files; each error names the setting."""
import dataclasses
import math

import pytest

from minillm.config import GPTConfig, TrainConfig, load_mix, load_toml, parse_setting


@pytest.mark.parametrize("config, field, value", [
    (GPTConfig, "n_layer", 0), (GPTConfig, "n_head", -1), (GPTConfig, "n_embd", 7.0), (GPTConfig, "n_embd", 770),
    (GPTConfig, "block_size", "9"), (GPTConfig, "vocab_size", True), (GPTConfig, "dropout", 1.0),
    (GPTConfig, "dropout", -0.1), (GPTConfig, "dropout", math.nan), (GPTConfig, "layer_norm_epsilon", 0.0),
    (GPTConfig, "layer_norm_epsilon", math.nan), (GPTConfig, "layer_norm_epsilon", math.inf),
    (TrainConfig, "steps", 0), (TrainConfig, "accumulate", 1.5), (TrainConfig, "warmup", -1), (TrainConfig, "lr", 0.0),
    (TrainConfig, "lr", math.nan), (TrainConfig, "lr", "3e-4"), (TrainConfig, "beta2", 1.0),
    (TrainConfig, "clip", -1.0), (TrainConfig, "eps", 0.0), (TrainConfig, "eps", math.inf),
    (TrainConfig, "backend", ""), (TrainConfig, "backend", 3),
], ids=lambda value: getattr(value, "__name__", repr(value)))
def test_bad_settings_are_named(config, field, value):
    with pytest.raises(ValueError, match=field):
        config(**{field: value})


def test_configurations_cannot_change_or_grow():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig().n_layer = 3
    with pytest.raises(TypeError, match="n_layers"):
        GPTConfig(n_layers=3)
    assert GPTConfig(dropout=0).dropout == 0


@pytest.mark.parametrize("setting, expected", [
    ("train.lr=3e-4", ("train", "lr", 3e-4)), ("optim.lr=1", ("train", "lr", 1.0)), ("lr=0.1", ("train", "lr", 0.1)),
    ("n_layer=3", ("model", "n_layer", 3)), ("model.dropout=0.1", ("model", "dropout", 0.1)),
    ("backend=cpu", ("train", "backend", "cpu")), ("recompute=true", ("train", "recompute", True)),
    (" train.steps = 5", ("train", "steps", 5)),
])
def test_parse_setting(setting, expected):
    got = parse_setting(setting)
    assert got == expected and type(got[2]) is type(expected[2])


@pytest.mark.parametrize("setting, words", [
    ("lr", "NAME=VALUE"), ("train.lrr=1", "unknown key train.lrr: expected one of .*lr"), ("foo=1", "foo"),
    ("data.lr=1", "unknown table 'data'"), ("model.lr=1", "unknown key model.lr"),
    ("steps=1.5", "steps must be of type int"), ("lr=fast", "lr must be of type float"),
    ("recompute=1", "recompute must be of type bool"), ("=3", "unknown key"),
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
    with_mix = write(tmp_path, "[data]\nmix = [0.7, '1/3', 2]\n")
    assert load_toml(with_mix) == ({}, {}) and load_mix(with_mix) == [0.7, "1/3", 2]
    assert load_mix(write(tmp_path, "[train]\nlr = 1e-3\n")) is None


@pytest.mark.parametrize("text, words", [
    ("mix = []", "data.mix must be a list of weights"), ("mix = 3", "data.mix must be a list of weights"),
    ("mixx = [1]", "config.toml: unknown key data.mixx"),
])
def test_a_mixture_that_is_none(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        load_mix(write(tmp_path, f"[data]\n{text}\n"))


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
