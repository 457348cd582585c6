"""`python -m benchmarks`: from the command line to JSON, part by part, whatever fails or is interrupted."""
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from benching import PEAKS, ROOT, quick, run_json, tokenizer_row  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import machine, measure, ops, suite
from minillm.kernels import select as registry


def test_json_has_the_fields_and_the_arithmetic_is_right(tmp_path, capsys):
    code, document = run_json(tmp_path, "linear", "adamw", "attention_decode", "--date", "2000-01-02")
    assert code == 0 and document["date"] == "2000-01-02" and document["wrong"] == {} and document["peaks"] == PEAKS
    assert {"cpu", "flags", "cores", "threads", "numpy", "blas", "torch", "python"} <= set(document["machine"])
    assert {(row["op"], row["direction"]) for row in document["rows"]} == {
        ("linear", "forward"), ("linear", "backward"), ("adamw", "update"), ("attention_decode", "forward")}
    for row in document["rows"]:
        assert {"dims", "candidate", "peak_percent", "bound", "x_numpy", "x_torch"} <= set(row)
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"] and row["samples"] >= 5
    first = document["rows"][0]
    assert first["candidate"] == "numpy" and first["x_numpy"] == 1
    assert first["gflops"] * first["median_ms"] == pytest.approx(8 * 8 * 16 ** 2 / 1e6)
    assert first["peak_percent"] == pytest.approx(max(first["gflops"], first["gbs"] / 10 * 100))


@pytest.mark.parametrize("candidate, limit", [("cpu", 100), ("cpu/3_simd", 100), ("cpu/bf16", 400), ("cpu/4_amx", 400)])
def test_a_share_of_peak_is_of_the_arithmetic_that_is_used(candidate, limit):
    """Variants whose GEMMs are in bfloat16 are held against the limit of bfloat16, though their arrays are float32."""
    peaks = {"memory": {"gbs": 1e9}, "float32": {"gflops": 100}, "bfloat16": {"gflops": 400}}
    timings = {candidate: measure.Timing(1.0, 1.0, 1.0, 5)}
    row = ops.row(registry.OPS["linear"], registry.Dims(), "float32", "forward", candidate, timings, (50e9, 1), peaks)
    assert row["peak_percent"] == pytest.approx(100 * 50 / limit) and row["bound"] == "compute"


def test_torch_agrees_on_every_op_it_has():
    pytest.importorskip("torch")
    from benchmarks import ops, oracle_torch
    for name, spec in registry.OPS.items():
        if not spec.torch:
            continue
        rng = np.random.default_rng(1)
        args = spec.sample(rng, "float32", registry.Dims(2, 7, 12, 3, 19))
        dout = ops.normal_like(rng, ops.output(spec, args)) if spec.kind == "pair" else np.empty(0)
        right, wrong = measure.gate([oracle_torch.candidate(spec, args, dout, 1)], ops.expected(spec, args, dout), 1e-4)
        assert right and not wrong, (name, wrong)


def test_the_command_runs_from_end_to_end():
    """At GPT-2's sizes: a call that is much shorter is made and checked a hundred thousand times."""
    command = "-m benchmarks layernorm --threads 1 --repeat 5".split()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False, capture_output=True, text=True, timeout=99)
    assert done.returncode == 0, done.stderr
    assert "layernorm  forward    numpy" in done.stdout and "limits measured in this run: memory" in done.stdout


@pytest.mark.parametrize("arguments, words", [
    (["layernrom"], "unknown benchmark 'layernrom'"),
    (["gelu", "--dims", "B=0"], "--dims: 'B=0'"), (["gelu", "--dims", "S=9"], "--dims: 'S=9'"),
    (["gelu", "--dims", "C=16,NH=3"], "C must be a multiple of NH"),
    (["step", "--size", "3T"], "--size must be one of"),
    (["step", "--tokens", "-1"], "--tokens must be at least 1"),
    (["step", "--only", "minilm"], "unknown candidate 'minilm'"),
    (["gelu", "--repeat", "2"], "repeat must be at least 5"),
])
def test_bad_input_is_one_clear_line(arguments, words, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0 and "python -m benchmarks layernorm" in capsys.readouterr().out


def test_what_was_measured_before_an_interruption_is_kept(tmp_path, monkeypatch):
    def parts(options, peaks, progress):
        yield [tokenizer_row("encode", "prose 1 thread", "cold", "minillm", 250)], {}, {"other": "not installed"}
        assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 1
        raise KeyboardInterrupt

    monkeypatch.setitem(suite.SPECIAL, "tokenizer", parts)
    assert cli.main(["tokenizer", "--json", "--out", str(tmp_path / "results.json")]) == 130
    document = json.loads((tmp_path / "results.json").read_text())
    assert len(document["rows"]) == 1 and document["skipped"] == {"tokenizer other": "not installed"}


def test_all_is_written_part_by_part_and_a_failure_stops_nothing(tmp_path, capsys, monkeypatch):
    """The second part fails, the last is not begun: its time is over. What the first found is in the file all along."""
    seen = []
    path = tmp_path / "results.json"

    def spy(options, peaks, progress=None):
        seen.append(json.loads(path.read_text())["rows"])
        raise RuntimeError("out of paper")

    monkeypatch.setitem(suite.SPECIAL, "decode", spy)
    monkeypatch.setattr(suite, "ALL", [("gelu", {}), ("decode", {}), ("gelu", {"ladder": True})])
    monkeypatch.setattr(suite, "time", SimpleNamespace(monotonic=iter([0, 0, 30, 61]).__next__))
    monkeypatch.setattr(machine, "others", lambda before: 0.9)
    code, document = run_json(tmp_path, "--all", "--minutes", "1")
    assert code == 1 and document["wrong"] == {"decode (part 2)": ["RuntimeError: out of paper"]}
    assert document["skipped"] == {"gelu (part 3)": "not begun after 1 minutes"}
    assert seen == [document["rows"]] and {row["op"] for row in document["rows"]} == {"gelu"}
    assert "BUSY MACHINE (0.9 cores" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    def stop(options, peaks, progress=None):
        raise KeyboardInterrupt

    monkeypatch.setitem(suite.SPECIAL, "demo", stop)
    monkeypatch.setattr(suite, "ALL", [("gelu", {}), ("demo", {}), ("linear", {})])
    code, document = run_json(tmp_path, "--all")
    assert code == 130 and {row["op"] for row in document["rows"]} == {"gelu"}


def test_what_all_runs_exists():
    for part in (suite.ALL, suite.QUICK):
        assert set(registry.OPS) <= {name for name, _ in part} <= {*registry.OPS, *suite.SPECIAL}
        options = cli.parser().parse_args([])
        assert all(hasattr(options, setting) for _, changes in part for setting in changes)


def test_bad_lengths_are_an_error(capsys):
    for text in ("0", "ten", "512,,"):
        assert cli.main(["attention_lengths", "--lengths", text]) == 2
        assert "--lengths must be positive numbers" in capsys.readouterr().err
