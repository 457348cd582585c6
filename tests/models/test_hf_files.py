"""Hugging Face directories, both ways: every form a GPT-2 is found in gives its logits, every damaged file one clear
error; a fuzzer damages files that were good and demands the same model or a ValueError, never much memory or time."""
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import GPT, GPTConfig, Tokenizer
from minillm.models.quantized import quantize, save_quantized
from minillm.storage.safetensors import read_safetensors, write_safetensors

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=6, vocab_size=300)
TOKENS = np.array([[5, 0, 299, 17, 4, 4], [1, 2, 3, 250, 80, 66]])
INDEX = "model.safetensors.index.json"


def small_model():
    """Large weights, in float16's range, so that a tensor put in the wrong place moves the logits far."""
    model = GPT(CONFIG, seed=1)
    model.params.flat[:] += 0.1 * np.random.default_rng(2).standard_normal(model.params.flat.size)
    return model


MODEL = small_model()
LOGITS = MODEL.forward(TOKENS)[0]


@pytest.fixture
def saved(tmp_path):
    MODEL.save_pretrained(tmp_path)
    return tmp_path


def stored_tensors(directory):
    return {name: np.array(array) for name, array in read_safetensors(directory / "model.safetensors")[0].items()}


def split(directory, parts=3):
    """Replace model.safetensors by shards and an index, as save_pretrained does with a small max_shard_size."""
    tensors = list(stored_tensors(directory).items())
    weight_map = {}
    for part in range(parts):
        shard = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        write_safetensors(directory / shard, dict(tensors[part::parts]), {"format": "pt"})
        weight_map |= {name: shard for name, _ in tensors[part::parts]}
    (directory / "model.safetensors").unlink()
    write_index(directory, weight_map)
    return weight_map


def write_index(directory, weight_map):
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))


def write_bfloat16(path, tensors):
    """Our writer has no BF16 (NumPy has none): the format by hand, the lower halves of the float32 cut off."""
    header, data = {}, b""
    for name, array in tensors.items():
        half = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [len(data), len(data) + len(half)]}
        data += half
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Forms

@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("sharded", [False, True])
def test_every_form_of_one_model_gives_its_logits(saved, prefix, head, dtype, sharded):
    """The float16 and bfloat16 files hold rounded weights: the answer is that of the rounded weights, exactly."""
    tensors = {prefix + name.removeprefix("transformer."): array for name, array in stored_tensors(saved).items()}
    if head:
        tensors["lm_head.weight"] = tensors[prefix + "wte.weight"]
    if dtype == "bfloat16":
        write_bfloat16(saved / "model.safetensors", tensors)
        rounded = {n: (a.view(np.uint32) & 0xFFFF0000).view(np.float32) for n, a in tensors.items()}
    else:
        tensors[prefix + "h.1.attn.bias"] = np.tril(np.ones((1, 1, 6, 6), bool))
        write_safetensors(saved / "model.safetensors",
                          {n: a if a.dtype == bool else a.astype(dtype) for n, a in tensors.items()})
        rounded = {n: a.astype(dtype).astype(np.float32) for n, a in tensors.items()}
    if sharded and dtype != "bfloat16":
        split(saved)
    model = GPT.from_pretrained(saved)
    assert all(np.array_equal(model.params[name], rounded[prefix + name]) for name in model.params)
    expected = MODEL.params.astype(np.float32)
    for name in expected:
        expected[name][:] = rounded[prefix + name]
    assert np.array_equal(model.forward(TOKENS)[0], GPT(CONFIG, params=expected).forward(TOKENS)[0])


def test_tokenizers_of_both_forms_are_read(tmp_path):
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog. " * 20], 280, stop_early=True)
    for form, save in (("json", tokenizer.save), ("pair", tokenizer.save_vocab_merges)):
        (tmp_path / form).mkdir()
        save(tmp_path / form)
        again = Tokenizer.from_pretrained(tmp_path / form)
        assert again.encode("the lazy fox, naïve ☃") == tokenizer.encode("the lazy fox, naïve ☃")
        assert again.eot_token == tokenizer.eot_token
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer.from_pretrained(tmp_path)


# Both ways with transformers

def torch_logits(model):
    import torch
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.float().numpy()


def test_transformers_gives_our_logits_and_our_ids(saved):
    """Within float32's rounding (the order of sums differs); a model saved, opened there and saved again is ours."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(saved)
    np.testing.assert_allclose(torch_logits(theirs), LOGITS, rtol=1e-5, atol=1e-5)
    theirs.save_pretrained(saved / "again", max_shard_size="4KB")
    assert (saved / "again" / INDEX).exists()
    assert np.array_equal(GPT.from_pretrained(saved / "again").forward(TOKENS)[0], LOGITS)
    tokenizer = Tokenizer.train(["one two three, two three, three! " * 30], 290, stop_early=True)
    tokenizer.save(saved)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(saved / "tokenizer.json"))
    for text in ("one three!  two\n", "naïve ☃ 漢字", ""):
        assert fast.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "GPT2Model"])
def test_we_give_the_logits_of_transformers(tmp_path, dtype, cls):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=6, vocab_size=300,
                                     initializer_range=0.3, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype))
    (theirs if cls == "GPT2LMHeadModel" else theirs.transformer).save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    np.testing.assert_allclose(ours.forward(TOKENS)[0], torch_logits(theirs.float()), rtol=1e-4, atol=1e-5)


# Damaged files: one clear error each

def header_of(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def write_raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def edit_entry(**changes):
    """A damage: other values in the entry of one tensor."""
    def damage(path):
        header, data = header_of(path)
        header["transformer.ln_f.bias"] |= changes
        write_raw(path, header, data)
    return damage


def set_value(value):
    def damage(path):
        tensors = stored_tensors(path.parent)
        tensors["transformer.h.1.mlp.c_fc.weight"][3, 7] = value
        write_safetensors(path, tensors)
    return damage


def add_entry(path):
    header, data = header_of(path)
    write_raw(path, header | {"more": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, data)


def repeat_key(path):
    header, data = header_of(path)
    text = json.dumps(header)
    write_raw(path, (text[:-1] + ", " + text[1:]).encode(), data)


def change_tensors(change):
    def damage(path):
        tensors = stored_tensors(path.parent)
        change(tensors)
        write_safetensors(path, tensors)
    return damage


LN = "transformer.ln_f.bias"
BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "too few"),
    "header of 2^63": (lambda path: path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}"), "header claims"),
    "header of 2^64-1": (lambda path: path.write_bytes(b"\xff" * 20), "header claims"),
    "truncated in the header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "truncated"),
    "truncated in the data": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
    "bytes after the end": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "belong to none"),
    "overlap": (add_entry, "overlaps"),
    "offsets out of range": (edit_entry(data_offsets=[2**40, 2**40 + 32]), "gap|truncated"),
    "negative offsets": (edit_entry(data_offsets=[-32, 0]), "two byte positions"),
    "offsets backwards": (edit_entry(data_offsets=[64, 32]), "needs 32 bytes"),
    "shape too large for its bytes": (edit_entry(shape=[2**62, 4]), "needs"),
    "a million dimensions": (edit_entry(shape=[2**62] * 10**6), "at most 64"),
    "wrong shape": (edit_entry(shape=[2, 4]), r"ln_f.bias: expected \(8,\), found \(2, 4\)"),
    "unknown dtype": (edit_entry(dtype="F8_E4M3"), "unknown dtype"),
    "integers": (edit_entry(dtype="I32"), "expected floating point"),
    "duplicate key": (repeat_key, "duplicate name"),
    "deep nesting": (lambda path: write_raw(path, b"[" * 10**5 + b"]" * 10**5, b""), "not valid JSON"),
    "missing tensor": (change_tensors(lambda t: t.pop(LN)), "ln_f.bias: expected .8,., found none"),
    "extra tensor": (change_tensors(lambda t: t.update(more=np.zeros(2))), "more: expected nothing of that name"),
    "another head": (change_tensors(lambda t: t.update({"lm_head.weight": np.zeros((300, 8))})), "untied"),
    "NaN": (set_value(np.nan), "h.1.mlp.c_fc.weight.*NaN"),
    "infinity": (set_value(-np.inf), "h.1.mlp.c_fc.weight.*infinity"),
    "too large for float32": (change_tensors(lambda t: t.update({LN: np.full(8, 1e300)})), "ln_f.bias.*infinity"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_get_one_clear_error(saved, name):
    damage, words = BAD_FILES[name]
    damage(saved / "model.safetensors")
    with pytest.raises(ValueError, match=words) as error:
        GPT.from_pretrained(saved)
    assert str(saved) in str(error.value) and len(str(error.value)) < 2000 and error.value.__cause__ is None


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/hostname", "..", "", "a/b.safetensors", "..\\x", "C:x",
                                   "x\0y", "x" * 300, 7, None, ["model.safetensors"]])
def test_the_index_cannot_lead_out_of_the_directory(saved, shard):
    inside = saved / "inside"
    inside.mkdir()
    MODEL.save_pretrained(inside)
    write_index(inside, split(inside) | {"transformer.wte.weight": shard})
    with pytest.raises(ValueError, match="weight_map must map tensors to names of files beside it"):
        GPT.from_pretrained(inside)


@pytest.mark.parametrize("text, words", [
    ("", "not valid JSON"), ("[]", "expected a JSON object"), ("{}", "weight_map"), ('{"weight_map": 3}', "weight_map"),
    ('{"weight_map": {}}', "only 0 tensors"), ('{"weight_map": {"a": "x", "a": "x"}}', "duplicate name"),
    ('{"weight_map": {"a": "config.json"}}', "config.json: not a safetensors file"),
])
def test_bad_indices_get_one_clear_error(saved, text, words):
    split(saved)
    (saved / INDEX).write_text(text)
    with pytest.raises(ValueError, match=words):
        GPT.from_pretrained(saved)


def test_missing_files_say_which(saved):
    weight_map = split(saved)
    shard = min(weight_map.values())
    (saved / shard).unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard}: no such file, but {INDEX} names it"):
        GPT.from_pretrained(saved)
    (saved / INDEX).unlink()
    (saved / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is a pickle, which is not read here"):
        GPT.from_pretrained(saved)


# The fuzzer

@pytest.fixture(scope="module", params=["shards", "int8"])
def original(request, tmp_path_factory):
    """A model's files as {name: bytes}, a directory to put damaged ones into, and what is to be loaded from it."""
    directory = tmp_path_factory.mktemp(request.param)
    tiny = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=3, vocab_size=5), seed=3)
    if request.param == "int8":
        tiny = quantize(tiny, "int8", 8)
        save_quantized(directory, tiny)
    else:
        tiny.save_pretrained(directory)
        split(directory, 2)
    return {path.name: path.read_bytes() for path in directory.iterdir()}, directory, tiny.params


EDITS = st.lists(st.tuples(st.sampled_from(["flip", "cut", "insert", "delete", "digit"]), st.integers(0, 10**6),
                           st.integers(1, 255)), min_size=1, max_size=4)


def damaged(data, edits, reach):
    """The bytes after the edits; those at a place stay below `reach`, the part of the file that is not weights."""
    data = bytearray(data)
    for kind, place, value in edits:
        if kind == "cut":
            del data[place % (len(data) + 1):]
            continue
        place %= max(1, min(reach, len(data)))
        if kind == "insert":
            data[place:place] = bytes([value]) * (1 + value % 9)
        elif kind == "delete":
            del data[place:place + value % 9]
        elif place < len(data):
            data[place] = data[place] ^ value if kind == "flip" else ord("0") + value % 10
    return bytes(data)


@settings(derandomize=True, deadline=None, max_examples=250)
@given(which=st.integers(0, 3), edits=EDITS)
def test_fuzzed_files_load_equal_or_raise(original, which, edits):
    """Edits of the headers, the index and the configuration; nothing but ValueError or a missing shard comes out."""
    files, directory, params = original
    name = sorted(files)[which % len(files)]
    header = 8 + int.from_bytes(files[name][:8], "little") if name.endswith(".safetensors") else len(files[name])
    for other, data in files.items():
        (directory / other).write_bytes(damaged(data, edits, header) if other == name else data)
    tracemalloc.start()
    try:
        loaded = GPT.from_pretrained(directory)
    except (ValueError, FileNotFoundError) as error:
        assert str(directory) in str(error), "the message names no file"
    else:
        same_tensors = name == "config.json" or all(same(loaded.params[n], params[n]) for n in params)
        assert same_tensors or moved(files[name], (directory / name).read_bytes())
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000, f"{peak} bytes for files of {sum(map(len, files.values()))}"


def same(a, b):
    """Of arrays, or of the pairs of arrays that a quantized matrix is."""
    return all(map(np.array_equal, a, b)) if isinstance(a, tuple) else np.array_equal(a, b)


def moved(before, after):
    """Whether the header says other things than before: two tensors of one shape that changed places, say."""
    def parse(raw):
        return json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    return parse(before) != parse(after)
