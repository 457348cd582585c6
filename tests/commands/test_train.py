"""The command line as a user types it: a training run from files to text, and one clear line for what is wrong."""
import json

import pytest

from minillm import Tokenizer
from minillm.__main__ import main, parser
from minillm.kernels.select import choices

TINY = ["--set", "model.n_layer=1", "--set", "model.n_head=2", "--set", "model.n_embd=16",
        "--set", "model.block_size=16", "--set", "train.steps=12", "--set", "train.batch_size=2",
        "--set", "eval_every=6", "--vocab-size", "300"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder as users have them: good files, and some that cannot be read."""
    folder = tmp_path_factory.mktemp("texts")
    for i in range(12):
        (folder / f"note{i}.txt").write_text(f"Note {i}: the quick brown fox jumps over {i} lazy dogs.\n" * 8)
    (folder / "readme.md").write_text("# A title\n\nAnd a paragraph, with a naïve word.\n" * 5)
    (folder / "code.py").write_text("def f(x):\n    return x + 1\n" * 5)
    (folder / "rows.jsonl").write_text('{"text": "one record of text"}\nnot json\n{"other": 1}\n')
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0\0")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 10)
    (folder / "latin1.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "empty.txt").write_text("")
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    """A run trained by the command."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert main(["train", "--data", str(texts), "--out", str(out), *TINY]) == 0
    return out


def test_train_writes_a_complete_run(run):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "log.csv", "last/state.json",
                 "data/shards.json"):
        assert (run / name).exists(), name


def test_train_counts_what_it_skips(texts, tmp_path, capsys):
    assert main(["train", "--data", str(texts), "--out", str(tmp_path), *TINY]) == 0
    said = capsys.readouterr().out
    for reason in ("binary", "not UTF-8", "empty", "bad JSON"):
        assert reason in said, said
    assert "bits per byte" in said and "verdict: too short to judge, all of it was warm-up. Try: " in said


def test_train_again_resumes_and_goes_on(run, texts, capsys):
    more = TINY + ["--set", "train.steps=14", "--json"]
    assert main(["train", "--data", str(texts), "--out", str(run), *more]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 14
    steps = [int(line.split(",")[0]) for line in (run / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps)) and steps[-1] == 14


def test_another_learning_rate_needs_override(run, texts, capsys):
    more = ["--data", str(texts), "--out", str(run), *TINY, "--set", "train.steps=15", "--set", "lr=1e-4"]
    assert main(["train", *more]) == 1
    assert "lr was 0.0006, now 0.0001; use --override" in capsys.readouterr().err
    assert main(["train", *more, "--override"]) == 0
    assert "resuming from step 14 (steps was 14, now 15; lr was 0.0006, now 0.0001)" in capsys.readouterr().out


def test_changed_data_is_noticed_and_the_run_stays_as_it_is(run, texts, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (texts / "new.txt").write_text("A new file appears. " * 20)
    assert main(["train", "--data", str(texts), "--out", str(run), *TINY]) == 1
    assert "was trained on other files" in capsys.readouterr().err
    small, ready = run.parent / "tokenizer", run.parent / "ready"                   # shards of another tokenizer
    Tokenizer.train(["a fox, another fox"], 260).save(small)
    assert main(["data", "tokenize", str(texts), "--tokenizer", str(small), "-o", str(ready),
                 "--val-fraction", "0.3"]) == 0
    assert main(["train", "--data", str(ready), "--out", str(run), *TINY]) == 1
    assert "use another --out" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (texts / "new.txt").unlink()


def test_toml_file(texts, tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text("[model]\nn_layer = 1\nn_head = 1\nn_embd = 8\nblock_size = 8\n"
                      "[train]\nsteps = 3\nbatch_size = 2\n")
    arguments = ["train", str(config), "--data", str(texts), "--out", str(tmp_path / "run"), "--vocab-size", "300"]
    assert main(arguments) == 0
    config.write_text("[model]\nn_layers = 1\n")
    assert main(arguments) == 1
    assert "n_layers" in capsys.readouterr().err
    config.write_text("[model]\nvocab_size = 300\n")
    assert main(arguments) == 1
    assert "config.toml: train does not read model.vocab_size: use --vocab-size" in capsys.readouterr().err


def test_generate(run, capsys):
    arguments = ["generate", str(run), "-p", "The quick", "-n", "20", "--seed", "3"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith("The quick")
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert main(["generate", str(run), "-n", "5"]) == 0


def with_kernels(*values):
    """A case that only an installation with compiled kernels has."""
    return pytest.param(*values,
                        marks=pytest.mark.skipif("cpu" not in choices("linear"), reason="no kernels are built"))


@pytest.mark.parametrize("arguments, words", [
    (["train", "--data", "/nowhere", "--out", "{tmp}"], "/nowhere"),
    (["train", "--data", "{empty}", "--out", "{tmp}"], "no usable"),
    (["train", "--data", "{texts}", "--out", "{tmp}", "--set", "lr=abc"], "lr"),
    (["train", "--data", "{texts}", "--out", "{tmp}", "--set", "n_head=5"], "n_head"),
    (["train", "--data", "{texts}", "--out", "{tmp}", "--set", "depth=5"], "depth"),
    (["train", "--data", "{texts}", "--out", "{tmp}", "--set", "train.backend=tpu"], "tpu"),
    (["train", "--data", "{texts}", "--out", "{tmp}", "--set", "model.vocab_size=300"],
     "train does not read model.vocab_size"),
    (["generate", "{empty}", "-p", "x"], "tokenizer.json"),
    (["gradcheck", "--op", "softmux"], "softmux"),
    with_kernels(["gradcheck", "--op", "linear", "--backend", "cpu/99_magic"], "99_magic"),
    (["gradcheck", "--op", "gelu", "--op", "adamw"], "--op adamw: it has no backward"),
    with_kernels(["gradcheck", "--op", "linear", "--backend", "cpu/bf16"], "takes no float64"),
    with_kernels(["gradcheck", "--op", "linear", "--backend", "cpu", "--method", "complex"], "only numpy"),
    with_kernels(["gradcheck", "--model", "--backend", "cpu", "--method", "complex"], "only numpy"),
])
def test_mistakes_get_one_line(arguments, words, texts, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path / "out", "empty": tmp_path / "empty", "texts": texts}
    assert main([argument.format(**places) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error, error


def test_tokenizer_train(texts, tmp_path, capsys):
    assert main(["tokenizer", "train", "--data", str(texts), "--vocab-size", "300", "--out", str(tmp_path / "t")]) == 0
    assert (tmp_path / "t" / "tokenizer.json").exists()
    assert "300 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["quickstart", "info", "train", "gradcheck", "tokenizer"])
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(([name, "train"] if name == "tokenizer" else [name]) + ["--help"])
    assert stop.value.code == 0
    assert "example: minillm" in " ".join(capsys.readouterr().out.split())
