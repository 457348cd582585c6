"""GGUF files: written and read back bit for bit, in every form, and what is not known refused by its name."""
from pathlib import Path

import numpy as np
import pytest
import sentencepiece_cases

from minillm import GPT, GPTConfig, Llama, LlamaConfig, Tokenizer, generate, load_model
from minillm.commands import export as command
from minillm.models.export import export_directory, export_gguf
from minillm.models.gguf import FORMS, read_gguf, read_tokenizer, settings_of, write_gguf
from minillm.models.load import load, model_class
from minillm.tokenizer.sentencepiece import SentencePiece

gguf = pytest.importorskip("gguf")

KINDS = Path(__file__).parents[1] / "tokenizer" / "kinds"
ODD = "Hello world, it's 12345 o'clock!\n\n\tdef f(x):  return x**2  naïve café 世界 🙂 e\u0301"
TEXT = "the cat sat on the mat and said hello to the dog; 12 naïve cats' dogs 世界. " * 20
SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 1024}      # transformers believes in GPT-2's 1024
LLAMA = SIZES | {"n_kv_head": 2, "head_dim": 8, "n_inner": 64}
LLAMA3 = tuple(sorted({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 8192}.items()))
SHORT3 = tuple(sorted((dict(LLAMA3) | {"original_max_position_embeddings": 16, "high_freq_factor": 2.5}).items()))
YARN = (("factor", 4.0), ("original_max_position_embeddings", 16), ("rope_type", "yarn"))
GEMMA2 = {"tied": True, "query_size": 8.0, "attention_cap": 2.0, "logit_cap": 3.0}
MODELS = {"gpt2": {}, "llama": {}, "llama tied": {"tied": True}, "llama wide heads": {"head_dim": 12},
          "llama 3": {"rope_scaling": LLAMA3, "rope_theta": 500000.0}, "llama short 3": {"rope_scaling": SHORT3},
          "llama yarn": {"rope_scaling": YARN},
          "llama linear": {"rope_scaling": (("factor", 4.0), ("rope_type", "linear"))},
          "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True, "tied": True},
          "olmo2": {"qk_norm": True}, "olmo2 tied": {"qk_norm": True, "tied": True, "rope_scaling": YARN},
          "gemma": {"tied": True, "head_dim": 12}, "gemma2": GEMMA2 | {"window": 4, "full_layers": (1,)},
          "gemma2 turned": GEMMA2 | {"window": 5, "full_layers": (0,), "qkv_bias": True},
          "gemma2 scaled": GEMMA2 | {"query_size": 3.0}}


def tokenizer_of(pattern="gpt2"):
    return Tokenizer.train(TEXT, 300, ["<|endoftext|>", "<|im_end|>"], pattern)


def model_of(name, vocab_size=300):
    """A random model whose norms and biases are random, too."""
    family = name.split()[0]
    if family == "gpt2":
        config = GPTConfig(**SIZES, vocab_size=vocab_size)
    else:
        config = LlamaConfig(**LLAMA | MODELS[name], vocab_size=vocab_size, family=family)
    model = model_class(config)(config)
    model.params.flat[:] += np.random.default_rng(0).normal(0, 0.1, model.params.flat.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("name", [name for name in MODELS if name != "gemma2 scaled"])
def test_a_model_comes_back_bit_for_bit(tmp_path, name):
    model = model_of(name)
    write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), "f32")
    config, params = read_gguf(tmp_path / "m.gguf")
    assert config == model.config
    for key, array in model.params.items():             # of a Gemma's norms only 1 + w is kept, bit for bit
        gain = 1 if name.startswith("gemma") and key.endswith("norm.weight") else 0
        assert np.array_equal(gain + params[key], gain + array), key
    again = load_model(tmp_path / "m.gguf")
    assert generate(again, [1, 2, 3], 5, temperature=0) == generate(model, [1, 2, 3], 5, temperature=0)


def test_a_scale_that_llama_cpp_lacks_is_multiplied_into_q(tmp_path):
    model = model_of("gemma2 scaled")
    write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), "f32")
    again, ids = load_model(tmp_path / "m.gguf"), np.arange(20)[None]
    assert again.config.query_size == 8
    np.testing.assert_allclose(again.forward(ids)[0], model.forward(ids)[0], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_of_the_file(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    if name.split()[-1] in ("yarn", "linear", "3", "qwen3"):
        pytest.skip("transformers reads no scaling of rotary positions from GGUF files, nor the width of Qwen3's heads")
    if name.split()[0] in ("olmo2", "gemma", "gemma2"):
        pytest.skip("transformers reads no caps, windows, widths of heads, nor OLMo 2's norms from GGUF files")
    model = model_of(name)
    write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    ids = np.random.default_rng(1).integers(0, 300, (2, 20))
    with torch.no_grad():
        logits = theirs(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(model.forward(ids)[0] - logits).max() < 2e-5 * max(1, np.abs(logits).max())


@pytest.mark.parametrize("form, most", [("f16", 5e-4), ("bf16", 4e-3), ("q8_0", 4.5e-3), ("q4_0", 0.13)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_form_is_as_exact_as_its_bits(tmp_path, name, form, most):
    model = model_of(name)
    counts = write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), form)
    assert FORMS[form] in counts and counts["F32"] > 0
    _, params = read_gguf(tmp_path / "m.gguf")
    for key, array in model.params.items():
        error = np.abs(params[key] - array).max() / np.abs(array).max()
        assert error < most and (error == 0) == (array.ndim < 2 or key == "wpe.weight"), key


def test_rows_that_no_block_divides_stay_float16(tmp_path):
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=24, block_size=16, vocab_size=300))
    counts = write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), "q4_0")
    assert counts == {"F16": 4, "F32": 11, "Q4_0": 1}                    # rows of 24, but for mlp.c_proj's of 96


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_the_tokenizer_comes_along(tmp_path, pattern):
    tokenizer, model = tokenizer_of(pattern), model_of("gpt2", 310)
    tokenizer.ends = frozenset([298, 299])
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    again, found = load(tmp_path / "m.gguf")
    assert found.encode(TEXT) == tokenizer.encode(TEXT) and found.pattern == pattern
    assert found.special_tokens == tokenizer.special_tokens and found.ends == tokenizer.ends
    assert found.eot_token == tokenizer.eot_token
    assert again.known == 300 and read_tokenizer(tmp_path / "m.gguf").vocab_size == 300     # 10 ids stand for nothing


@pytest.mark.parametrize("name", ["llama3", "smollm", "deepseek"])
def test_tokenizers_of_other_families(tmp_path, name):
    tokenizer = Tokenizer.from_pretrained(KINDS / f"{name}.json")
    write_gguf(tmp_path / "m.gguf", model_of("llama", tokenizer.vocab_size), tokenizer)
    again = read_tokenizer(tmp_path / "m.gguf")
    assert again.encode(ODD, "all") == tokenizer.encode(ODD, "all") and list(again.before) == list(tokenizer.before)


@pytest.mark.parametrize("name", ["llama2", "gemma", "never"])
def test_sentencepiece_comes_along(tmp_path, name):
    tokenizer = SentencePiece(sentencepiece_cases.load()[0][name])
    write_gguf(tmp_path / "m.gguf", model_of("llama", tokenizer.vocab_size), tokenizer)
    again = read_tokenizer(tmp_path / "m.gguf")
    for text in (*sentencepiece_cases.TEXTS, ODD):
        assert again.encode(text, "all") == tokenizer.encode(text, "all"), text
    if name != "never":                             # whose decoder leaves bytes as they are written
        assert again.decode(again.encode_ordinary(ODD)) == tokenizer.decode(tokenizer.encode_ordinary(ODD))
    assert list(again.before) == list(tokenizer.before) == [1]


def test_export_and_back(tmp_path, capsys):
    tokenizer, model = tokenizer_of(), model_of("qwen3")
    model.save_pretrained(tmp_path / "run", tokenizer.eot_token)
    tokenizer.save(tmp_path / "run")
    result = export_gguf(tmp_path / "run", tmp_path / "m.gguf", "f32")
    assert result["bytes"] == (tmp_path / "m.gguf").stat().st_size and result["types"] == "24 F32"
    export_directory(tmp_path / "m.gguf", tmp_path / "back")
    assert np.array_equal(load_model(tmp_path / "back").params.flat, model.params.flat)
    assert load(tmp_path / "back")[1].encode(TEXT) == tokenizer.encode(TEXT)
    with pytest.raises(ValueError, match="--out .*not empty"):
        export_directory(tmp_path / "m.gguf", tmp_path / "back")
    assert command.FORMS == tuple(FORMS)


def test_llama_cpp_answers_with_the_same_tokens(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    for name in MODELS:
        model = model_of(name)
        model.params.flat[:] *= 2                       # no ties
        write_gguf(tmp_path / "m.gguf", model, tokenizer_of(), "f32")
        theirs = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=64, verbose=False, logits_all=True)
        theirs.eval(range(5, 25))
        ours, scores = model.forward(np.arange(5, 25)[None])[0][0], theirs._scores[:20]
        assert np.abs(ours - scores).max() < 0.01 * np.abs(ours).max(), name            # its keys are float16
        answer = []
        for _ in range(12):
            answer.append(int(np.argmax(theirs._scores[-1])))
            theirs.eval(answer[-1:])
        assert [*range(5, 25), *answer] == generate(model, [*range(5, 25)], 12, temperature=0), name


# ---- what cannot be

def test_what_cannot_be_written_is_named(tmp_path):
    model, tokenizer = model_of("llama"), tokenizer_of()
    with pytest.raises(ValueError, match="gguf must be one of f32, f16.*'q5_1'"):
        write_gguf(tmp_path / "m.gguf", model, tokenizer, "q5_1")
    windowed = Llama(LlamaConfig(**LLAMA, vocab_size=300, window=8, family="mistral"))
    with pytest.raises(ValueError, match="^window = 8 is not .* in its architecture llama: a sliding window"):
        write_gguf(tmp_path / "m.gguf", windowed, tokenizer)
    with pytest.raises(ValueError, match="byte-level tokenizer without merges"):
        write_gguf(tmp_path / "m.gguf", model, Tokenizer.train(TEXT, 257, ["<|endoftext|>"]))
    with pytest.raises(ValueError, match="without byte fallback"):
        write_gguf(tmp_path / "m.gguf", model, SentencePiece(sentencepiece_cases.load()[0]["fused"]))
    tokenizer.pattern = "mine"
    with pytest.raises(ValueError, match="'mine' is none that llama.cpp has"):
        write_gguf(tmp_path / "m.gguf", model, tokenizer)
    model.params["lm_head.weight"][0, 0] = 1e6
    with pytest.raises(ValueError, match="lm_head.weight has weights beyond float16"):
        write_gguf(tmp_path / "m.gguf", model, tokenizer_of())
    assert not list(tmp_path.iterdir())                 # and nothing half written is left


REFUSED = {"tied": {"family": "gemma"}, "o_bias": {"family": "qwen3", "qk_norm": True, "o_bias": True},
           "mlp_bias": {"family": "olmo2", "qk_norm": True, "mlp_bias": True}, "qk_norm": {"qk_norm": True},
           "head_dim": {"family": "qwen2", "head_dim": 12}, "rope_scaling": {"family": "qwen2", "rope_scaling": LLAMA3},
           "attention_cap": GEMMA2 | {"family": "gemma2", "attention_cap": 0.0},
           "logit_cap": GEMMA2 | {"family": "gemma2", "logit_cap": 0.0},
           "query_size": {"query_size": 4.0}}


@pytest.mark.parametrize("name", REFUSED)
def test_traits_that_llama_cpp_does_not_compute_are_named(name):
    with pytest.raises(ValueError, match=f"^{name} = .* is not computed by llama.cpp in its architecture"):
        settings_of(LlamaConfig(**LLAMA | REFUSED[name], vocab_size=300), "f32", "m")


@pytest.mark.parametrize("name", ["attention_cap", "logit_cap"])
def test_caps_of_a_first_gemma_are_named(name):
    with pytest.raises(ValueError, match=f"^{name} = 3.0 is not computed by llama.cpp in its architecture gemma:"):
        settings_of(LlamaConfig(**LLAMA | {"family": "gemma", "tied": True, name: 3.0}, vocab_size=300), "f32", "m")


def rewritten(path, metadata=(), tensors=()):
    """A file of these keys and tensors alone."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in dict(metadata).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
    for name, array in dict(tensors).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_strange_files_are_refused(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_model(path)
    path.write_bytes(b"GGML is older than GGUF")
    with pytest.raises(ValueError, match="not a GGUF file"):
        load_model(path)
    rewritten(path, {"general.architecture": "mamba"}, {"token_embd.weight": np.zeros((4, 4), np.float32)})
    with pytest.raises(ValueError, match="general.architecture = 'mamba' is not supported"):
        load_model(path)
    rewritten(path, {"llama.block_count": 1}, {"token_embd.weight": np.zeros((4, 4), np.float32)})
    with pytest.raises(ValueError, match="missing llama.attention.head_count"):
        load_model(path)
    rewritten(path, {"split.count": 2})
    with pytest.raises(ValueError, match="one part of several"):
        load_model(path)
    rewritten(path, {"tokenizer.ggml.model": "bert"})
    with pytest.raises(ValueError, match="tokenizer.ggml.model = 'bert' is not supported"):
        load(path)


def test_truncated_files_are_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", model_of("llama"), tokenizer_of(), "q8_0")
    data = (tmp_path / "m.gguf").read_bytes()
    for kept in np.linspace(0, len(data) - 1, 30).astype(int):
        (tmp_path / "cut.gguf").write_bytes(data[:kept])
        with pytest.raises(ValueError, match="cut.gguf"):
            load(tmp_path / "cut.gguf")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'minillm\[gguf\]'"):
        write_gguf(tmp_path / "m.gguf", model_of("gpt2"), tokenizer_of())
