"""`minillm train --data web/ code/ --mix 0.7 0.3`: sources of all kinds, resumed to the bit, refused where changed."""
import json
import shutil

import numpy as np
import pytest

from minillm import GPTConfig, Tokenizer, TrainConfig
from minillm.data.shards.mixture import Mixture
from minillm.data.shards.tokenize import tokenize
from minillm.recipes.train_on_files import train_on_files
from minillm.train.log import read_log

SHAPE = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=300)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr("minillm.recipes.train_on_files.plot_losses", lambda run: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two folders of text, ready shards and a token file of one tokenizer."""
    place = tmp_path_factory.mktemp("sources")
    for name, line in (("web", "the cat sat on the mat"), ("code", "def f(x): return x + 1")):
        (place / name).mkdir()
        for i in range(10):
            (place / name / f"{i}.txt").write_text(f"{i} {line}\n" * (20 if name == "web" else 8))
    (place / "tok").mkdir()
    tokenizer = Tokenizer.train(["the cat sat on the mat, def f(x): return x + 1"], 280, stop_early=True)
    tokenizer.save(place / "tok")
    tokenize([([place / "web"], 1.0)], tokenizer, place / "ready", 0.2)
    np.array(tokenizer.encode("return x + 1\n" * 200), "<u2").tofile(place / "code.bin")
    return place


def trained(place, out, steps, names=("web", "code"), mix=("0.7", "0.3"), resume="auto", tokenizer=None,
            vocab_size=300, **more):
    """(results, what was said)."""
    said = []
    config = TrainConfig(steps=steps, batch_size=2, accumulate=2, eval_every=2, save_every=3, warmup=1, **more)
    return train_on_files([place / name for name in names], out, SHAPE, config, tokenizer, vocab_size, resume,
                          said.append, mix=mix), "\n".join(said)


@pytest.fixture(scope="module")
def run(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillm.recipes.train_on_files.plot_losses", lambda run: None)
        return place / "run", *trained(place, place / "run", 8)


def test_each_source_is_told_and_validated(run):
    out, results, said = run
    assert "mixture     web: 70.0% of the rows, 0.2" in said and "of each source: web " in said
    rows = read_log(out, "sources.csv")
    assert [row["step"] for row in rows] == [2, 4, 6, 8] == [row["step"] for row in read_log(out)]
    assert results["sources"] == {name: rows[-1][name] for name in ("web", "code")}
    low, high = sorted(results["sources"].values())
    assert low < results["val_loss"] < high
    assert json.loads((out / "last" / "state.json").read_text())["settings"]["mix"] == "web 7/10, code 3/10"


def test_a_resumed_mixture_ends_with_the_same_bytes(place, run, tmp_path, monkeypatch):
    """Killed in step 5, in the middle of an epoch of both sources; the last checkpoint is of step 3."""
    copy, batch = tmp_path / "resumed", Mixture.batch

    def killed(data, step, micro=0):
        if (step, micro) == (5, 1):
            raise KeyboardInterrupt
        return batch(data, step, micro)
    monkeypatch.setattr(Mixture, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(place, copy, 8)
    monkeypatch.setattr(Mixture, "batch", batch)
    assert "resuming from step 3" in trained(place, copy, 8)[1]
    for name in ("last/model.safetensors", "last/optimizer.safetensors", "model.safetensors", "sources.csv"):
        assert (copy / name).read_bytes() == (run[0] / name).read_bytes(), name


def test_other_weights_need_override(place, run, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "run")
    with pytest.raises(ValueError, match="mix was web 7/10, code 3/10, now web 1/2, code 1/2; use --override"):
        trained(place, out, 9, mix=[1, 1])
    assert trained(place, out, 9, mix=[7, 3])[0]["steps"] == 9          # the same weights in other words
    assert trained(place, out, 10, mix=[1, 1], resume="override")[0]["steps"] == 10
    with pytest.raises(ValueError, match="trained on other"):           # their order is another mixture
        trained(place, out, 11, names=("code", "web"))
    with pytest.raises(ValueError, match="with --vocab-size 300, not 290"):
        trained(place, out, 11, mix=[1, 1], vocab_size=290)


def test_changed_texts_are_named(place, run, tmp_path):
    out, changed = shutil.copytree(run[0], tmp_path / "run"), shutil.copytree(place / "code", tmp_path / "code")
    (changed / "3.txt").write_text("something else")
    with pytest.raises(ValueError, match="trained on other files: 3.txt has changed"):
        trained(place, out, 9, names=("web", changed))


def test_shards_and_token_files_are_sources_too(place, tmp_path):
    names, mix = ("ready", "code.bin", "code"), [1, 1, 2]
    with pytest.raises(ValueError, match="name the tokenizer that made them with --tokenizer"):
        trained(place, tmp_path / "r", 2, names, mix)
    results, said = trained(place, tmp_path / "r", 2, names, mix, tokenizer=place / "tok")
    assert list(results["sources"]) == list(names) and "mixture     code.bin: 25.0% of the rows" in said
    assert sorted(path.name for path in (tmp_path / "r" / "data").iterdir()) == ["code"]     # the others are not copied
    trained(place, tmp_path / "r", 3, names, mix, tokenizer=place / "tok")


def test_all_sources_have_one_tokenizer(place, run, tmp_path):
    with pytest.raises(ValueError, match="ready: its tokenizer is not that of the other sources"):
        trained(place, tmp_path / "r", 2, ("ready", "code"), tokenizer=run[0])


def test_weights_are_checked_before_anything_is_made(place, tmp_path):
    with pytest.raises(ValueError, match="mix: got 1 weights for 2 sources"):
        trained(place, tmp_path / "r", 2, mix=[1])
    assert not (tmp_path / "r").exists()


def test_folders_of_one_name_are_numbered(place, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.txt").write_text("the dog and the cat\n" * 30)
    results, _ = trained(place, tmp_path / "r", 2, ("web", tmp_path / "web"))
    assert list(results["sources"]) == ["web-1", "web-2"]


def test_one_source_alone_is_drawn_as_without_weights(place, run, tmp_path):
    plain, mixed = (trained(place, tmp_path, 4, ("web",), mix, "never", run[0])[0] for mix in (None, [1]))
    assert mixed.pop("sources") == {"web": pytest.approx(mixed["val_loss"], rel=1e-5)} and mixed == plain
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == ["web"]
    assert not list((tmp_path / "data").glob("*.bin")), "the shards of the run before are gone"
