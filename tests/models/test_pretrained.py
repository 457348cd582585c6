"""Checkpoints: exact round trips, strict reading of damaged files, kills and full disks, transformers both ways."""
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_same_bits

from minillm.models import pretrained as checkpoint
from minillm.models.pretrained import (load_model, load_training, recover_directory, replace_directory, save_model,
                                       save_training)
from minillm.config import GPTConfig
from minillm.models.params import Params, gpt_shapes
from minillm.storage.safetensors import read_safetensors, write_safetensors

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=5, vocab_size=11, dropout=0.25, layer_norm_epsilon=1e-6)


def random_params(config=CONFIG, seed=0, dtype=np.float32):
    params = Params(gpt_shapes(config), dtype)
    params.flat[:] = np.random.default_rng(seed).standard_normal(params.flat.size)
    return params


# Models

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_round_trip_is_exact(tmp_path, dtype):
    params = random_params(dtype=dtype)
    save_model(tmp_path / "deep" / "run", CONFIG, params, eot_token=3)
    config, loaded = load_model(tmp_path / "deep" / "run", dtype)
    assert config == CONFIG and loaded.flat.flags.writeable
    assert_same_bits(loaded.flat, params.flat)
    assert json.loads((tmp_path / "deep" / "run" / "config.json").read_text())["eos_token_id"] == 3
    assert load_model(tmp_path / "deep" / "run")[1].flat.dtype == np.float32


def test_params_of_another_config_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"wte.weight: expected \(11, 8\), found \(12, 8\)"):
        save_model(tmp_path / "x", CONFIG, random_params(GPTConfig(2, 2, 8, 5, 12)))
    assert not (tmp_path / "x").exists()


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path, CONFIG, random_params())
    return tmp_path


def rewrite(directory, change):
    """Apply `change` to the dict of tensors of a saved model."""
    tensors = dict(read_safetensors(directory / "model.safetensors")[0])
    change(tensors)
    write_safetensors(directory / "model.safetensors", tensors)


def test_buffers_prefixes_and_tied_heads_are_read(saved):
    def change(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["wte.weight"]
        tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 5, 5), bool))
        tensors["h.1.attn.masked_bias"] = np.array(-1e4, np.float32)
    rewrite(saved, change)
    assert_same_bits(load_model(saved)[1].flat, random_params().flat)


def test_shards_are_joined(saved):
    tensors = list(read_safetensors(saved / "model.safetensors")[0].items())
    shards = {"model-1.safetensors": dict(tensors[:5]), "model-2.safetensors": dict(tensors[5:])}
    for name, shard in shards.items():
        write_safetensors(saved / name, shard)
    (saved / "model.safetensors").unlink()
    index = {"weight_map": {tensor: name for name, shard in shards.items() for tensor in shard}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_bits(load_model(saved)[1].flat, random_params().flat)
    index["weight_map"][tensors[0][0]] = "model-2.safetensors"
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"model-2.safetensors.*{tensors[0][0]}"):
        load_model(saved)
    index["weight_map"][tensors[0][0]] = "../model-1.safetensors"
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="weight_map"):
        load_model(saved)


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop("transformer.ln_f.bias"), ["ln_f.bias", "(8,)", "found none"]),
    (lambda t: t.update(rubbish=np.zeros(3)), ["rubbish", "nothing of that name", "(3,)"]),
    (lambda t: t.update({"transformer.ln_f.bias": np.zeros(9)}), ["ln_f.bias", "(8,)", "(9,)"]),
    (lambda t: t.update({"transformer.ln_f.bias": np.zeros(8, np.int64)}), ["ln_f.bias", "int64"]),
    (lambda t: t.update({"lm_head.weight": np.zeros((11, 8))}), ["lm_head.weight", "untied"]),
    (lambda t: t.update({"ln_f.bias": np.zeros(8)}), ["ln_f.bias", "with and without"]),
    (lambda t: t.clear(), ["n_layer"]),
])
def test_wrong_tensors_are_named(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ValueError) as error:
        load_model(saved)
    assert all(word in str(error.value) for word in [str(saved), *words]), error.value


@pytest.mark.parametrize("key, value", [
    ("activation_function", "relu"), ("scale_attn_by_inverse_layer_idx", True), ("add_cross_attention", True),
    ("scale_attn_weights", False), ("n_inner", 31), ("model_type", "llama"), ("tie_word_embeddings", False),
    ("n_layer", "two"), ("n_layer", 10**12), ("n_head", 3), ("n_positions", 0), ("resid_pdrop", 1.5),
    ("vocab_size", None), ("layer_norm_epsilon", float("nan")), ("quantization_config", {"bits": 4}),
])
def test_configurations_we_do_not_compute_are_named(saved, key, value):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=key) as error:
        load_model(saved)
    assert "config.json" in str(error.value)


def test_harmless_settings_are_accepted(saved):
    path = saved / "config.json"
    stored = json.loads(path.read_text())
    del stored["resid_pdrop"], stored["activation_function"], stored["n_inner"]
    path.write_text(json.dumps(stored | {"n_inner": 32, "attn_pdrop": 0.7, "something_new": [1]}))
    assert load_model(saved)[0].dropout == 0.1   # GPT2Config's own default


def test_missing_and_corrupt_files_are_named(saved):
    with pytest.raises(FileNotFoundError, match="nowhere.config.json"):
        load_model(saved / "nowhere")
    stored = (saved / "config.json").read_text()
    for text in ("", stored[:40], "[1, 2]", "\x00"):
        (saved / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            load_model(saved)
    (saved / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="config.json: missing n_layer, n_head"):
        load_model(saved)
    (saved / "config.json").write_text(stored)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        load_model(saved)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(place=st.integers(0, 10**6), flips=st.lists(st.integers(1, 255), min_size=1, max_size=3))
def test_flipped_config_bytes_never_crash(tmp_path_factory, place, flips):
    directory = tmp_path_factory.getbasetemp() / "flipped_config"
    save_model(directory, CONFIG, random_params())
    damaged = bytearray((directory / "config.json").read_bytes())
    for i, flip in enumerate(flips):
        damaged[(place + i) % len(damaged)] ^= flip
    (directory / "config.json").write_bytes(damaged)
    try:
        load_model(directory)
    except ValueError as error:
        assert "config.json" in str(error) or str(directory) in str(error)


# transformers

def test_transformers_reads_ours(saved):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, report = transformers.GPT2LMHeadModel.from_pretrained(saved, output_loading_info=True)
    assert not any(report.values()), report
    state, params = model.state_dict(), random_params()
    assert torch.equal(state.pop("lm_head.weight"), state["transformer.wte.weight"])
    assert {name.removeprefix("transformer.") for name in state} == set(params)
    for name, array in params.items():
        assert np.array_equal(state["transformer." + name].numpy(), array), name
    ours = model.config
    assert (ours.n_layer, ours.n_head, ours.n_embd, ours.n_positions, ours.vocab_size) == (2, 2, 8, 5, 11)
    assert (ours.resid_pdrop, ours.embd_pdrop, ours.attn_pdrop, ours.layer_norm_epsilon) == (0.25, 0.25, 0.25, 1e-6)
    assert ours.activation_function == "gelu_new" and ours.tie_word_embeddings


@pytest.mark.parametrize("cls, options", [("GPT2LMHeadModel", {}), ("GPT2LMHeadModel", {"max_shard_size": "2KB"}),
                                          ("GPT2Model", {})])
def test_we_read_transformers(tmp_path, cls, options):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=5, vocab_size=11, resid_pdrop=0.25,
                                     layer_norm_epsilon=1e-6, bos_token_id=0, eos_token_id=0)
    model = getattr(transformers, cls)(config)
    model.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() != bool(options)   # the small limit did make shards
    loaded_config, params = load_model(tmp_path)
    state = {name.removeprefix("transformer."): tensor.numpy() for name, tensor in model.state_dict().items()}
    assert loaded_config == CONFIG
    assert state.keys() - {"lm_head.weight"} == set(params)
    assert all(np.array_equal(params[name], state[name]) for name in params)


# Training state

def save_run(directory, step=7, seed=0):
    params = random_params(seed=seed)
    save_model(directory, CONFIG, params)
    save_training(directory, random_params(seed=seed + 1), random_params(seed=seed + 2),
                  {"step": step, "best": float("inf"), "lr": 0.1 + 0.2, "nested": {"betas": [0.9, 0.95]}, "no": None})


def test_training_state_round_trip_is_exact(tmp_path):
    save_run(tmp_path)
    m, v, state = load_training(tmp_path)
    assert_same_bits([m.flat, v.flat], [random_params(seed=seed).flat for seed in (1, 2)])
    assert list(m) == list(v) == list(random_params()) and m.shapes == v.shapes == random_params().shapes
    assert state == {"step": 7, "best": float("inf"), "lr": 0.1 + 0.2, "nested": {"betas": [0.9, 0.95]}, "no": None}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_bit_rot_is_found_and_named(tmp_path, name):
    save_run(tmp_path)
    intact, rng = (tmp_path / name).read_bytes(), random.Random(0)
    for place in rng.sample(range(len(intact)), 40):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            state = load_training(tmp_path)[2]
        except ValueError as error:   # a checksum damaged in state.json itself accuses the file that it is of
            assert name in str(error)
        else:   # only white space in state.json may change unnoticed
            assert name == "state.json" and bytes(damaged).split() == intact.split() and state["step"] == 7
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_training(tmp_path)


def test_states_that_cannot_be_written(tmp_path):
    save_model(tmp_path, CONFIG, random_params())
    for state, word in (({"checksums": 1}, "checksums"), ({"a": np.float32(1)}, "JSON")):
        with pytest.raises(ValueError, match=word):
            save_training(tmp_path, random_params(), random_params(), state)
        assert not (tmp_path / "state.json").exists()


# Kills and full disks

def test_replace_directory_swaps_the_whole(tmp_path):
    run = tmp_path / "runs" / "last"
    replace_directory(run, lambda d: save_run(d, step=1))
    (run / "stray").write_text("of the old generation")
    replace_directory(run, lambda d: save_run(d, step=2))
    assert load_training(run)[2]["step"] == 2 and not (run / "stray").exists()
    assert [path.name for path in run.parent.iterdir()] == ["last"]


@pytest.mark.parametrize("first", [False, True])
def test_a_failing_fill_leaves_the_old_directory(tmp_path, first):
    run = tmp_path / "last"
    if not first:
        replace_directory(run, lambda d: save_run(d, step=1))

    def fill(directory):
        save_model(directory, CONFIG, random_params())
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        replace_directory(run, fill)
    assert [path.name for path in tmp_path.iterdir()] == ([] if first else ["last"])
    assert first or load_training(run)[2]["step"] == 1


@pytest.mark.parametrize("failing", ["path", "temporary"])
def test_a_failing_rename_leaves_the_old_directory(tmp_path, monkeypatch, failing):
    run = tmp_path / "last"
    replace_directory(run, lambda d: save_run(d, step=1))
    rename = checkpoint.Path.rename

    def fail(self, target):
        if self.name == {"path": "last", "temporary": ".last.tmp"}[failing]:
            raise OSError("input/output error")
        return rename(self, target)
    monkeypatch.setattr(checkpoint.Path, "rename", fail)
    with pytest.raises(OSError, match="input/output"):
        replace_directory(run, lambda d: save_run(d, step=2))
    assert load_training(run)[2]["step"] == 1 and [path.name for path in tmp_path.iterdir()] == ["last"]


def test_links_are_followed_and_files_refused(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "last").symlink_to(tmp_path / "disk")
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=3))
    assert (tmp_path / "last").is_symlink() and load_training(tmp_path / "disk")[2]["step"] == 3
    (tmp_path / "file").write_text("precious")
    with pytest.raises(NotADirectoryError, match="file"):
        replace_directory(tmp_path / "file", save_run)
    assert (tmp_path / "file").read_text() == "precious"


def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            cwd=checkpoint.Path(__file__).parents[1])


def test_full_disk_leaves_the_old_checkpoint(tmp_path):
    """RLIMIT_FSIZE makes the kernel itself refuse the write half-way through a file."""
    pytest.importorskip("resource")
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=1))
    code = """if True:
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        from test_checkpoint import replace_directory, save_run
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            replace_directory(sys.argv[1], lambda d: save_run(d, step=2))
        except OSError as error:
            print(error.strerror)
    """
    output, _ = python(code, tmp_path / "last", checkpoint.Path(__file__).parent).communicate(timeout=60)
    assert "large" in output   # EFBIG: the limit did bite
    assert load_training(tmp_path / "last")[2]["step"] == 1 and len(list(tmp_path.iterdir())) == 1


GENERATIONS = """if True:
    import os, sys
    from pathlib import Path
    from minillm.checkpoint import recover_directory, replace_directory

    def fill(generation):
        def write(directory):
            (directory / "sub").mkdir()
            for name in ("a", "b", "c", "sub/d"):
                (directory / name).write_text(f"{generation} " * 1000)
        return write

    def generation(path):
        "The one number that all the files carry, or 0 where there is no directory; AssertionError where they differ."
        if not path.exists():
            return 0
        texts = {(path / name).read_text() for name in ("a", "b", "c", "sub/d")}
        words = set(" ".join(texts).split())
        assert len(texts) == 1 and len(words) == 1 and len(texts.pop().split()) == 1000, "torn"
        return int(words.pop())
"""


def test_sigkill_before_every_file_operation(tmp_path):
    """A child is killed before its n-th open, mkdir, rename or removal, for every n; each time the old or the new
    directory is found whole, and the one after a finished swap is the new one."""
    code = GENERATIONS + """
    EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def die_before(n):
        count = 0
        def hook(event, arguments):
            nonlocal count
            count += event in EVENTS
            if count == n:
                os.kill(os.getpid(), 9)
        sys.addaudithook(hook)

    path, seen = Path(sys.argv[1]), []
    for start in (0, 1):   # the first checkpoint of a run, and a later one
        for n in range(1, 200):
            recover_directory(path)
            before = generation(path) if start else 0
            if not start and path.exists():
                os.rename(path, path.with_name(f"done{n}"))
            child = os.fork()
            if child == 0:
                die_before(n)
                replace_directory(path, fill(before + 1))
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            recover_directory(path)
            seen.append((start, generation(path) - before))
            assert seen[-1][1] in (0, 1), seen
            assert sorted(p.name for p in path.parent.glob("*last*")) == ["last"] * path.exists()
            if status == 0:
                assert seen[-1][1] == 1
                break
        assert status == 0, "never finished"
    print(len(seen), *{f"{start}{new}" for start, new in seen})
    """
    child = python(code, tmp_path / "last")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    kills, *outcomes = output.split()
    assert int(kills) > 30 and set(outcomes) == {"00", "01", "10", "11"}   # killed before the swap and after it


def test_sigkill_at_random_moments(tmp_path):
    """The same with real time: the writer is killed wherever it happens to be, and another goes on from there."""
    code = GENERATIONS + """
    path = Path(sys.argv[1])
    recover_directory(path)
    number = generation(path)
    print("ready", flush=True)
    while True:
        number += 1
        replace_directory(path, fill(number))
    """
    namespace, moments, last = {}, random.Random(0), 0
    exec(GENERATIONS, namespace)
    for _ in range(10):
        child = python(code, tmp_path / "last")
        child.stdout.readline()
        time.sleep(moments.uniform(0.02, 0.15))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        recover_directory(tmp_path / "last")
        found = namespace["generation"](tmp_path / "last")
        assert found >= last
        last = found
    assert last > 10   # the writers did get on


def test_recovery_after_a_kill_between_the_renames(tmp_path):
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=1))
    (tmp_path / "last").rename(tmp_path / ".last.old")
    (tmp_path / ".last.tmp").mkdir()
    recover_directory(tmp_path / "last")
    assert load_training(tmp_path / "last")[2]["step"] == 1 and len(list(tmp_path.iterdir())) == 1
    shutil.rmtree(tmp_path / "last")
    recover_directory(tmp_path / "last")   # nothing to recover is no error
