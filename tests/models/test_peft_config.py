"""adapter_config.json: which layers have an update, of which rank and scale, and what is refused by its name."""
import numpy as np
import pytest
from chats import small_model

from minillm import GPT, GPTConfig
from minillm.models.adapted import GPT2_LAYERS, LoraModel, layer_names, load_adapter, save_adapter
from minillm.models.peft_config import check_kind, placed_layers
from minillm.storage.safetensors import read_safetensors, write_safetensors

BASE = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, vocab_size=20))
NAMES = layer_names(BASE, GPT2_LAYERS.targets)
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "bias": "none"}


def placed(**settings):
    return placed_layers(CONFIG | settings, NAMES, "transformer.")


NAMED = [
    ({}, ["h.0.attn.c_attn", "h.1.attn.c_attn"]), ({"target_modules": "all-linear"}, NAMES),
    ({"target_modules": "All-Linear", "exclude_modules": ["c_proj"]}, [n for n in NAMES if "c_proj" not in n]),
    ({"target_modules": ["attn.c_proj", "h.1.mlp.c_fc"]}, ["h.0.attn.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_fc"]),
    ({"target_modules": ["transformer.h.1.mlp.c_fc", "of_another_model"]}, ["h.1.mlp.c_fc"]),
    ({"target_modules": r".*\.1\..*c_fc"}, ["h.1.mlp.c_fc"]),
    ({"target_modules": r"transformer\.h\.0\.attn\..*"}, ["h.0.attn.c_attn", "h.0.attn.c_proj"]),
    ({"layers_to_transform": [1]}, ["h.1.attn.c_attn"]), ({"layers_to_transform": 0}, ["h.0.attn.c_attn"]),
    ({"layers_to_transform": []}, ["h.0.attn.c_attn", "h.1.attn.c_attn"]),
    ({"layers_to_transform": [1], "layers_pattern": ["blocks", "h"]}, ["h.1.attn.c_attn"]),
    ({"exclude_modules": r".*h\.1.*"}, ["h.0.attn.c_attn"]),
    ({"target_modules": "all-linear", "modules_to_save": ["attn", "h.1"]}, ["h.0.mlp.c_fc", "h.0.mlp.c_proj"])]


@pytest.mark.parametrize("settings, names", NAMED, ids=str)
def test_layers_are_named_as_peft_names_them(settings, names):
    assert list(placed(**settings)) == names


def test_peft_itself_names_them_so():
    peft, utils = pytest.importorskip("peft"), pytest.importorskip("peft.tuners.tuners_utils")
    for settings, names in NAMED:
        config = peft.LoraConfig(**{"target_modules": ["c_attn"]} | settings)
        if str(config.target_modules).lower() == "all-linear":
            config.target_modules = {f"transformer.{name}" for name in NAMES}
        assert [n for n in NAMES if utils.check_target_module_exists(config, f"transformer.{n}")] == names, settings


def test_ranks_and_scales_by_pattern():
    found = placed(target_modules="all-linear", rank_pattern={"mlp.c_proj": 2, r"h\.\d+\.mlp\..*": 16, "c_att": 9},
                   alpha_pattern={"h.1.mlp.c_fc": 64, "transformer.h.0.attn.c_attn": 2})
    assert found["h.0.mlp.c_proj"] == (2, 4) and found["h.0.mlp.c_fc"] == (16, 0.5)      # the first that matches
    assert found["h.1.mlp.c_fc"] == (16, 4) and found["h.0.attn.c_attn"] == (4, 0.5)     # c_att is not its whole end
    assert found["h.1.attn.c_attn"] == (4, 2)
    assert placed(use_rslora=True, rank_pattern={"h.0.attn.c_attn": 16}) == {
        "h.0.attn.c_attn": (16, 2.0), "h.1.attn.c_attn": (4, 4.0)}


@pytest.mark.parametrize("settings, words", [
    ({"target_modules": ["wte"]}, "target_modules = .*'wte'.* names no layer .*: expected some of attn.c_attn"),
    ({"target_modules": "c_attn"}, "names no layer"), ({"target_modules": None}, "target_modules must be a list"),
    ({"target_modules": "(c_attn"}, "target_modules: .* is no usable regular expression"),
    ({"target_modules": r"(.*)*(.*)*(.*)*\d{3}x"}, "target_modules|no usable"),
    ({"layers_to_transform": "1"}, "layers_to_transform must be"), ({"layers_to_transform": [True]}, "must be"),
    ({"layers_to_transform": [1], "layers_pattern": ["blocks"]}, "names no layer"),
    ({"target_modules": ".*c_attn", "layers_to_transform": [1]}, "layers_to_transform is for a list"),       # as PEFT
    ({"rank_pattern": [1]}, "rank_pattern must map"), ({"rank_pattern": {"c_attn": 0}}, "rank must be at least 1"),
    ({"rank_pattern": {"(": 1}}, "rank_pattern"), ({"alpha_pattern": {"c_attn": -1}}, "alpha must be above 0"),
    ({"exclude_modules": [3]}, "exclude_modules must be"), ({"modules_to_save": "attn"}, "modules_to_save must be"),
], ids=str)
def test_what_cannot_be_matched_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        placed(**settings)


@pytest.mark.parametrize("key, value", [
    ("use_dora", True), ("lora_bias", True), ("bias", "lora_only"), ("peft_type", "IA3"), ("loftq_config", {"a": 1}),
    ("init_lora_weights", "olora"), ("use_bdlora", {"a": 1}), ("ensure_weight_tying", True)])
def test_what_computes_something_else_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(ValueError, match=key):
        check_kind(CONFIG | {key: value}, tmp_path)
    check_kind(CONFIG | {key: CONFIG.get(key)}, tmp_path)


# ---- files that belong to another base, or are no tensors ----

@pytest.fixture
def folder(tmp_path):
    save_adapter(LoraModel(small_model(dtype=np.float32), rank=2, targets=["c_attn"]), tmp_path)
    return tmp_path


def test_an_adapter_of_another_base_names_the_tensor_and_the_shapes(folder):
    other = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=20))
    with pytest.raises(ValueError, match=r"tensor 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight' has "
                                         r"shape \(2, 16\), but the base model and r = 2 \(rank_pattern\) ask for \(2, "
                                         r"8\)"):
        load_adapter(other, folder)
    deeper = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=20))
    with pytest.raises(ValueError, match=r"h.1.attn.c_attn.lora_A.weight' is missing: expected shape \(2, 16\)"):
        load_adapter(deeper, folder)
    save_adapter(LoraModel(deeper, rank=2, targets=["c_attn"]), folder)
    with pytest.raises(ValueError, match=r"h.1.attn.c_attn.lora_A.weight' has shape \(2, 16\), but .* nothing there"):
        load_adapter(small_model(dtype=np.float32), folder)


def test_a_pickle_is_refused_with_a_word(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="adapter_model.bin is a pickle, which is not read here"):
        load_adapter(small_model(dtype=np.float32), folder)
    with pytest.raises(FileNotFoundError, match="there is no adapter: expected adapter_config.json"):
        load_adapter(small_model(dtype=np.float32), folder / "nowhere")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(folder, value):
    path = folder / "adapter_model.safetensors"
    tensors = {name: array.copy() for name, array in read_safetensors(path)[0].items()}
    next(iter(tensors.values())).flat[0] = value
    write_safetensors(path, tensors)
    with pytest.raises(ValueError, match="must hold finite floating point numbers"):
        load_adapter(small_model(dtype=np.float32), folder)
