"""Models of every family from settings by name: sizes and traits, what is refused, what transformers reads."""
import numpy as np
import pytest

from minillm import GPTConfig, LlamaConfig, load_model
from minillm.config import parse_setting
from minillm.models.dry_run import model_class
from minillm.models.gguf import settings_of
from minillm.models.llama_files import ARCHITECTURES
from minillm.models.load import FAMILIES, fresh_config
from minillm.train.memory import count_parameters

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 40}


def test_gpt2_is_what_is_meant_without_a_family():
    assert fresh_config({"n_layer": 3}) == fresh_config({"n_layer": 3, "family": "gpt2"}) == GPTConfig(n_layer=3)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_has_its_traits_and_the_usual_sizes(family):
    c = fresh_config(SMALL | {"family": family})
    assert (c.family, c.qkv_bias) == (family, family == "qwen2") and (c.qk_norm or family != "qwen3")
    assert (c.n_kv_head, c.head_dim, c.n_inner, c.tied) == (4, 8, 128, True)
    assert count_parameters(c) == model_class(c)(c).params.flat.size


OWN = {"mistral": {"window": 4096}, "olmo2": {"norm_eps": 1e-5, "qk_norm": True}, "qwen2": {"qkv_bias": True},
       "qwen3": {"qk_norm": True}, "gemma2": {"window": 4096, "full_layers": (1,), "query_size": 8.0,
                                              "attention_cap": 50.0, "logit_cap": 30.0}}
TRAITS = ("window", "full_layers", "norm_eps", "qk_norm", "qkv_bias", "query_size", "attention_cap", "logit_cap")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_has_what_is_its_own_and_llama_cpp_computes_it(family):
    c = fresh_config(SMALL | {"family": family})
    assert {name: getattr(c, name) for name in TRAITS} == {
        name: getattr(LlamaConfig(), name) for name in TRAITS} | OWN.get(family, {})
    assert settings_of(c, "f32", "fresh")["general.architecture"]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_what_is_its_own_is_what_transformers_has(family):
    theirs = pytest.importorskip("transformers").AutoConfig.for_model(family).to_dict()
    own = fresh_config({"family": family})
    assert own.norm_eps == theirs["rms_norm_eps"] and own.rope_theta == theirs["rope_parameters"]["rope_theta"]
    assert own.window == (theirs.get("sliding_window") or 0)
    assert own.attention_cap == theirs.get("attn_logit_softcapping", 0) and own.logit_cap == theirs.get(
        "final_logit_softcapping", 0)
    if own.window and family != "mistral":
        theirs = [kind == "full_attention" for kind in theirs["layer_types"][:own.n_layer]]
        assert own.full_layers == tuple(i for i, full in enumerate(theirs) if full)


def test_what_is_its_own_may_be_said_otherwise():
    def window_of(**values):
        c = fresh_config(SMALL | {"family": "gemma2"} | values)
        return c.window, c.full_layers
    assert window_of(window=8) == (8, (1,)) and window_of(window=0) == (0, ())
    assert window_of(full_layers=[0]) == (4096, (0,)) and window_of(full_layers=[]) == (4096, ())
    c = fresh_config(SMALL | {"family": "gemma2", "logit_cap": 0.0, "attention_cap": 3.0})
    assert (c.logit_cap, c.attention_cap) == (0, 3) and fresh_config({"family": "mistral", "window": 0}).window == 0
    assert fresh_config({"family": "gemma2", "n_layer": 10 ** 12}).n_layer == 10 ** 12


def test_sizes_that_are_given_are_kept():
    given = {"n_kv_head": 2, "head_dim": 6, "n_inner": 50, "tied": False, "norm_eps": 1e-5, "rope_theta": 5e5,
             "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    c = fresh_config(SMALL | {"family": "llama"} | given)
    assert c.rope_scaling == (("factor", 2.0), ("rope_type", "linear"))
    assert all(getattr(c, name) == value for name, value in given.items() if name != "rope_scaling")
    assert fresh_config({"family": "llama", "n_embd": 50, "n_head": 3, "head_dim": 4}).n_embd == 50


@pytest.mark.parametrize("values, words", [
    ({"qk_norm": True}, "model.qk_norm is not a setting of family gpt2: .*or another model.family"),
    ({"family": "llama", "layer_norm_epsilon": 1e-5}, "model.layer_norm_epsilon is not a setting of family llama"),
    ({"family": "mamba"}, "model.family must be one of gpt2, llama, .*: got 'mamba'"),
    ({"family": "llama", "qk_norm": True}, "model.qk_norm must be False in family llama"),
    ({"family": "qwen3", "qk_norm": False}, "model.qk_norm must be True in family qwen3"),
    ({"family": "llama", "window": 8}, "llama without a window"),
    ({"family": "qwen2", "o_bias": True}, "model.o_bias must be False in family qwen2"),
    ({"family": "llama", "dropout": 0.1}, "dropout must be 0"), ({"family": "llama", "n_head": "3"}, "n_head"),
    ({"family": "llama", "n_embd": 30, "n_head": 10}, "head_dim must be even: got 3"),
    ({"family": "llama", "n_head": 4, "n_kv_head": 3}, "n_kv_head must divide n_head"),
], ids=str)
def test_what_a_family_does_not_have_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        fresh_config(values)


def test_settings_of_every_family_are_read():
    assert parse_setting("model.family=qwen3") == ("model", "family", "qwen3")
    assert parse_setting("n_kv_head=2") == ("model", "n_kv_head", 2)
    assert parse_setting("qk_norm=true") == ("model", "qk_norm", True)
    with pytest.raises(ValueError, match="rope_scaling is a table"):
        parse_setting("model.rope_scaling=linear")


def test_a_shape_too_large_to_list_is_counted():
    one, two, many = (count_parameters(fresh_config({"family": "qwen3", "n_layer": n})) for n in (1, 2, 10 ** 12))
    assert many == one + (10 ** 12 - 1) * (two - one)


@pytest.mark.parametrize("values", [{"family": family} for family in FAMILIES] + [
    {"family": family, "window": 5} for family in ("mistral", "qwen2", "qwen3")], ids=str)
def test_transformers_reads_what_is_saved(values, tmp_path):
    """The same logits, at positions beyond the window, too; and we read back the same model."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    c = fresh_config(SMALL | values)
    model = model_class(c)(c)
    model.params.flat[:] *= 5
    model.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 40, (2, 16))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    assert np.abs(model.forward(tokens)[0] - want).max() < 2e-5 * max(1, np.abs(want).max())
    assert load_model(tmp_path).config == c
