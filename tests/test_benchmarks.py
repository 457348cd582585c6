"""The benchmarks: a wrong kernel is caught and not timed, candidates take turns, reports hold what they promise."""
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))                  # benchmarks is not installed with the package

from benchmarks import __main__ as cli  # noqa: E402
from benchmarks import machine, measure, ops, report, step, suite, workers  # noqa: E402
from minillm import ops as reference  # noqa: E402
from minillm.kernels import select as registry  # noqa: E402

SMALL = ["--dims", "B=1,T=8,C=16,V=31", "--threads", "1"]
PEAKS = {"memory": {"gbs": 10.0, "by": "copy"}, "float32": {"gflops": 100.0, "by": "numpy"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No measuring of limits, short bursts, and the environment put back afterwards."""
    for name in cli.THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(machine, "peaks", lambda threads, dtypes: PEAKS)
    monkeypatch.setattr(measure.interleave, "__defaults__", (None, 0.005, *measure.interleave.__defaults__[2:]))


@pytest.fixture
def planted(monkeypatch):
    """A "compiled" LayerNorm whose backward forgets the term that goes through the variance."""
    def backward(dout, cache):
        dx, dweight, dbias = reference.layernorm_backward(dout, cache)
        return (dx + np.float32(0.01) * dout, dweight, dbias)

    kernels = {name: getattr(reference, name) for spec in registry.OPS.values() for name in registry.functions(spec)}
    kernels |= {"layernorm_backward": backward, "__name__": "planted"}
    monkeypatch.setattr(registry, "_cpp", SimpleNamespace(**kernels))
    monkeypatch.setattr(registry, "KERNELS", (registry.Kernel("layernorm", "cpu"),))


def run_json(tmp_path, *arguments):
    path = tmp_path / "results.json"
    code = cli.main([*arguments, *SMALL, "--json", "--out", str(path)])
    return code, json.loads(path.read_text())


def test_a_wrong_kernel_is_named_and_not_timed(planted, tmp_path, capsys):
    code, document = run_json(tmp_path, "layernorm")
    assert code == 1
    assert set(document["wrong"]) == {"layernorm cpu"}
    (line,) = document["wrong"]["layernorm cpu"]
    assert line.startswith("dx[0, ") and "expected" in line and "allowed 1e-04" in line
    assert "cpu" not in {row["candidate"] for row in document["rows"]}
    assert "WRONG, not timed: layernorm cpu" in capsys.readouterr().out


def test_a_kernel_that_raises_is_wrong_and_the_others_go_on():
    good = measure.Candidate("good", {}, lambda: {"out": np.ones(3)})
    bad = measure.Candidate("bad", {}, lambda: 1 / 0)
    right, wrong = measure.gate([bad, good], {"out": np.ones(3)}, 1e-4)
    assert right == [good] and "ZeroDivisionError" in wrong["bad"][0]


@pytest.mark.parametrize("change, words", [
    (lambda a: a.__setitem__((1, 2), np.nan), "out[1, 2] is nan"),
    (lambda a: a.__setitem__((2, 0), a[2, 0] + 1), "out[2, 0]"),
    (lambda a: a.resize((4, 3), refcheck=False), "out has shape (4, 3), expected (3, 4)"),
], ids=["nan", "off", "shape"])
def test_disagreements_name_the_worst_element(change, words):
    expected = np.random.default_rng(0).standard_normal((3, 4))
    got = expected.astype(np.float32)
    assert measure.disagreements({"out": got}, {"out": expected}, 1e-4) == []
    change(got)
    (line,) = measure.disagreements({"out": got}, {"out": expected}, 1e-4)
    assert words in line


def test_order_gives_everybody_every_place_and_both_neighbours():
    names = ["a", "b", "c"]
    rounds = [measure.order(names, turn) for turn in range(6)]
    assert all(sorted(names_now) == names for names_now in rounds)
    for name in names:
        assert sorted(names_now.index(name) for names_now in rounds) == [0, 0, 1, 1, 2, 2]
    assert {(left, right) for r in rounds for left, right in zip(r, r[1:])} == {
        (x, y) for x in names for y in names if x != y}


def test_candidates_take_turns_and_medians_are_those_of_the_calls():
    now, calls, costs = [0.0], [], {"slow": 0.5, "quick": 0.125}          # exact in binary

    def candidate(name):
        def run():
            calls.append(name)
            now[0] += costs[name]
            return np.ones(2)
        return run

    timings = measure.interleave({name: candidate(name) for name in costs}, budget=1.0, clock=lambda: now[0],
                                 sleep=lambda seconds: calls.append("|"))
    bursts = "".join(f" {name}" for name in calls).split(" |")[1:]
    turns = [burst.split()[0] for burst in bursts]
    assert turns == ["slow", "quick", "quick", "slow", "quick", "slow", "slow", "quick", "slow", "quick"]
    assert {burst.strip() for burst in bursts} == {"slow", "quick quick"}
    assert timings["slow"].median == pytest.approx(0.5) and timings["slow"].samples == 5
    assert timings["quick"].median == pytest.approx(0.125) and timings["quick"].samples == 10


def test_a_result_that_is_not_finite_stops_the_timing():
    with pytest.raises(FloatingPointError):
        measure.interleave({"bad": lambda: np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match="at least 5"):
        measure.interleave({}, repeat=4)


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
    """Variants whose matmuls are in bfloat16 are held against the limit of bfloat16,
    though their arrays are float32."""
    peaks = {"memory": {"gbs": 1e9}, "float32": {"gflops": 100}, "bfloat16": {"gflops": 400}}
    timings = {candidate: measure.Timing(1.0, 1.0, 1.0, 5)}
    row = ops.row(registry.OPS["linear"], registry.Dims(), "float32", "forward", candidate, timings, (50e9, 1), peaks)
    assert row["peak_percent"] == pytest.approx(100 * 50 / limit) and row["bound"] == "compute"


def test_no_paths_or_host_names_in_the_description():
    text = json.dumps(machine.describe(2))
    assert "/" not in text.replace(machine.describe(2)["family"], "") and machine.platform.node() not in text


def test_machine_limits_are_positive_and_say_what_they_are(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(machine, "PRODUCT", 64)
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    found = machine.peaks(2, ("float32", "float64"), stream=2 ** 20)
    assert set(found) == {"memory", "float32", "float64"}
    for peak in found.values():
        assert peak["tried"][peak["by"]] == max(peak["tried"].values()) == peak.get("gflops", peak.get("gbs")) > 0


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
    command = "-m benchmarks layernorm --dims B=1,T=8,C=16 --threads 1".split()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False, capture_output=True, text=True, timeout=99)
    assert done.returncode == 0, done.stderr
    assert "layernorm  forward    numpy" in done.stdout and "limits measured in this run: memory" in done.stdout


@pytest.mark.parametrize("arguments, words", [
    (["layernrom"], "unknown benchmark 'layernrom'"),
    (["gelu", "--dims", "B=0"], "--dims: 'B=0'"),
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


def test_step_on_a_tiny_model(tmp_path):
    code, document = run_json(tmp_path, "step", "--size", "tiny", "--batch", "2", "--tokens", "8", "--only", "minillm")
    (row,) = document["rows"]
    assert code == 0 and row["candidate"] == "minillm" and row["dims"] == "tiny B=2 T=8" and row["x_minillm"] == 1
    assert row["samples"] == 5 and row["peak_rss_mb"] > 10
    assert row["tokens_per_second"] == pytest.approx(16e3 / row["median_ms"])
    assert row["losses"][2] < row["losses"][0] == pytest.approx(np.log(257), rel=0.02)


@pytest.mark.skipif("cpu/bf16" not in registry.choices("linear"), reason="kernels are not built")
def test_steps_with_and_without_the_copy_of_weights_race(tmp_path):
    """The one with it takes part only where it is named; both compute the same."""
    names = ["minillm bf16", "minillm bf16 (copy)"]
    code, document = run_json(tmp_path, "step", "--size", "tiny", "--batch", "2", "--tokens", "8", "--only",
                              ",".join(names))
    one, other = document["rows"]
    assert code == 0 and [one["candidate"], other["candidate"]] == names and one["losses"] == other["losses"]
    assert names[1] not in [candidate["name"] for candidate in step.chosen(step.candidates(), None)]


def test_a_wrong_step_and_a_broken_worker_are_caught():
    config, B, T = step.sizes("tiny", 1, 4)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, B, T)).tolist()
    entrants = [step.entrant("good", "gpt_minillm", backend="numpy"),
                step.entrant("other rate", "gpt_minillm", backend="numpy", lr=3e-2),
                step.entrant("missing", "gpt_nothing"), step.entrant("optional", "gpt_nothing", compile=True)]
    with step.job_for(config, 1, batch=tokens, lr=1e-4, clip=1.0, weight_decay=0.1) as job:
        results, wrong, skipped = workers.race(entrants, "step", job, step.same_loss, together=2)
    assert [result["candidate"] for result in results] == ["good"]
    assert set(wrong) == {"other rate", "missing"} and set(skipped) == {"optional"}
    assert wrong["other rate"][0].startswith("loss of step 3") or wrong["other rate"][0].startswith("loss of step 2")
    assert "gpt_nothing" in wrong["missing"][0]


def test_groups_hold_the_first_candidate():
    assert workers.split(list("abcd"), 3) == [["a", "b", "c"], ["a", "d"]]
    assert workers.split(["a"], 2) == [["a"]]
    assert workers.fitting(4, 20) == 4 and workers.fitting(4, 1) == 2


def test_step_flops_of_gpt2():
    config, B, T = step.sizes("124M", 4, 256)
    assert step_share(config, B, T) == pytest.approx(6 * 124e6 * 1024, rel=0.03)


def step_share(config, B, T):
    return step.step_flops(config, B, T) - 12 * 7 * B * T ** 2 * 768


EMPTY = {"date": "2026-01-01", "peaks": {}, "rows": [], "wrong": {}, "skipped": {},
         "machine": {"cpu": "a CPU", "threads": 1, "cores": 1, "flags": [], "numpy": "2", "blas": "b", "torch": None,
                     "minillm_kernels": "scalar", "load": 0.0}}


def tokenizer_row(op, dims, direction, candidate, mbs):
    return {"op": f"tokenizer {op}", "dims": dims, "dtype": "uint16", "direction": direction, "candidate": candidate,
            "median_ms": 1500.0, "low_ms": 1.0, "high_ms": 2.0, "mbs": mbs, "peak_rss_mb": 99.0, "x_minillm": 1.0}


def test_tokenizer_tables_have_a_line_a_candidate(tmp_path):
    rows = [tokenizer_row("encode", "prose 1 thread", "cold", "minillm", 250),
            tokenizer_row("train", "8000 1 thread", "train", "a", 9),
            tokenizer_row("encode", "prose 1 thread", "warm", "minillm", 480),
            tokenizer_row("stream", "1 GB 1 thread", "stream", "a", 7),
            tokenizer_row("encode", "prose 1 thread", "cold", "a", 15)]
    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows}))
    (tmp_path / "README.md").write_text("<!-- benchmarks -->\n<!-- tokenizer -->\n<!-- /tokenizer -->\n")
    report.update_readmes(tmp_path / "results.json", tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("<!-- benchmarks -->\n<!-- tokenizer -->\n")
    for line in ("|  | prose 1 thread cold | prose 1 thread warm |", "| minillm | 250 | 480 |", "| a | 15 | - |",
                 "|  | 8k tokens |", "| a | 1.50 (99) |",
                 "A stream of 1 GB through `encode_iterable`, an id at a time: 7 MB/s"):
        assert line in text


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
        assert {*registry.OPS} <= {name for name, _ in part} <= {*registry.OPS, *suite.SPECIAL}
        options = cli.parser().parse_args([])
        assert all(hasattr(options, setting) for _, changes in part for setting in changes)


def test_other_work_is_what_the_machine_did_without_us(monkeypatch):
    """Of 12 busy seconds in 10, 7 were ours: half a core was somebody else's."""
    times = iter([(100.0, 3.0, 50.0), (112.0, 10.0, 60.0)])
    monkeypatch.setattr(machine, "usage", lambda: next(times))
    assert machine.others(machine.usage()) == 0.5
    monkeypatch.setattr(machine, "usage", lambda: None)
    assert machine.others(None) is None


def test_attention_lengths_and_ladders_have_their_tables(tmp_path):
    code, document = run_json(tmp_path, "attention_lengths", "--lengths", "64")
    assert code == 0 and {row["dims"] for row in document["rows"]} == {"B=1 T=64 C=256 NH=4"}
    assert all(row["memory_mb"] >= 0 for row in document["rows"])
    _, ladder = run_json(tmp_path, "linear", "--ladder")
    text = report.markdown({**document, "rows": document["rows"] + ladder["rows"]})
    assert "| 64 |" in text and "What each idea buys, `linear`" in text and "| `cpu/1_naive` |" in text


def test_bad_lengths_are_an_error(capsys):
    for text in ("0", "ten", "512,,"):
        assert cli.main(["attention_lengths", "--lengths", text]) == 2
        assert "--lengths must be positive numbers" in capsys.readouterr().err


@pytest.fixture
def readmes(tmp_path, monkeypatch):
    """Two READMEs as the tables expect them; the last arguments of update_readmes are theirs."""
    paths = tmp_path / "TABLES.md", tmp_path / "README.md"
    for path, name in zip(paths, ("benchmarks", "headlines")):
        path.write_text(f"# Title\n<!-- {name} -->\nold\n<!-- /{name} -->\nthe rest\n")
    monkeypatch.setattr(report.update_readmes, "__defaults__", paths)
    return paths


def test_tables_go_between_the_markers(tmp_path, readmes):
    _, document = run_json(tmp_path, "gelu")
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0
    text, front = (path.read_text() for path in readmes)
    assert text.startswith("# Title\n<!-- benchmarks -->\n") and text.endswith("<!-- /benchmarks -->\nthe rest\n")
    assert "| `gelu` | forward |" in text and "old" not in text and document["machine"]["cpu"] in text
    assert "old" in front                                                   # no whole model was measured
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0 and readmes[0].read_text() == text


def test_headlines_are_ours_against_the_fastest_other(tmp_path, readmes):
    def row(candidate, ms):
        return {"op": "step", "dims": "tiny B=1 T=8", "dtype": "float32", "direction": "step", "candidate": candidate,
                "median_ms": ms, "low_ms": ms, "high_ms": ms, "x_minillm": 10 / ms}
    rows = [row("minillm", 10.0), row("torch eager fp32", 30.0), row("torch eager fp32 tuned", 15.0),
            row("torch eager bf16", 8.0)]
    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows}))
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0
    text = readmes[1].read_text()
    assert "| step, tiny B=1 T=8 | float32 | 10.000 | torch eager fp32 tuned | 15.000 | 1.50x |" in text
    assert "bfloat16" not in text


@pytest.mark.parametrize("text", ["", "<!-- benchmarks -->", "<!-- /benchmarks --><!-- benchmarks -->"])
def test_a_readme_without_markers_is_left_alone(tmp_path, readmes, text):
    readmes[0].write_text(text)
    (tmp_path / "results.json").write_text(json.dumps(EMPTY))
    with pytest.raises(ValueError, match="<!-- /benchmarks -->, once each"):
        report.update_readmes(tmp_path / "results.json")
    assert readmes[0].read_text() == text


def test_the_newest_results_are_found_among_files_of_other_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no results yet"):
        report.newest()
    for name, document in (("2026-01-01-all", EMPTY), ("2026-01-01-step", EMPTY),
                           ("2027-01-01-other", {"date": "2027-01-01"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    assert report.newest().stem == "2026-01-01-all" and report.update_readmes.__defaults__ == (report.TABLES,
                                                                                               report.FRONT)


def test_speculative_measures_a_pair(tmp_path, capsys):
    """A pair of tiny models: every draft, k and temperature has a row beside plain decoding."""
    from minillm import GPT, GPTConfig
    from minillm.data.shards.write import write_shards
    from minillm.tokenizer import Tokenizer
    tokenizer = Tokenizer.train(["some text about a fox " * 20], 270, special_tokens=["<|endoftext|>"])
    for name, width in (("target", 16), ("draft", 8)):
        GPT(GPTConfig(1, 1, width, 32, tokenizer.vocab_size), 1).save_pretrained(tmp_path / name)
    write_shards([(f"text {i}", "a fox about some text " * 9) for i in range(30)], tokenizer,
                 tmp_path / "target" / "data")
    where = ["--target", str(tmp_path / "target"), "--draft", str(tmp_path / "draft")]
    code, document = run_json(tmp_path, "speculative", *where)
    found = {row["candidate"] for row in document["rows"]}
    assert code == 0 and {"draft k=3", "lookup k=8", "plain beside draft k=5"} <= found and len(document["rows"]) == 24
    assert all(row["x_theory"] > 0 for row in document["rows"] if row["candidate"].startswith("draft"))
    assert cli.main(["speculative"]) == 2 and "--target DIR" in capsys.readouterr().err
