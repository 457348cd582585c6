"""Steps beside busy processes as a benchmark: what is expected of them, and a small run."""
import json
import time

import pytest
from benching import quick  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import load
from benchmarks.measure import Timing


def test_a_fair_share_counts_every_runnable_thread():
    assert load.fair_share(2, 0, cores=2) == 1
    assert load.fair_share(2, 1, cores=2) == 1.5 and load.fair_share(2, 2, cores=2) == 2
    assert load.fair_share(1, 1, cores=2) == 1 and load.fair_share(1, 2, cores=2) == 1.5
    assert load.fair_share(4, 1, cores=16) == 1


def test_rows_are_held_against_the_better_of_one_thread_and_the_fair_share():
    def timing(seconds):
        return Timing(seconds, seconds, seconds, 5)

    timings = {0: {"minillm": timing(0.2), "minillm, 1 thread": timing(0.3)},
               2: {"minillm": timing(0.6), "minillm, 1 thread": timing(0.5), "torch eager": timing(0.9)}}
    rows = {(row["dims"], row["candidate"]): row for row in load.report_rows("small", timings, threads=2, cores=2)}
    assert rows["small, 0 busy", "minillm"]["x_fair"] == 1
    assert rows["small, 2 busy", "minillm"]["x_fair"] == pytest.approx(0.6 / 0.4)          # 2 threads of 4, 2 cores
    assert rows["small, 2 busy", "torch eager"]["x_minillm"] == pytest.approx(0.6 / 0.9)
    timings[2]["minillm, 1 thread"] = timing(0.35)
    rows = load.report_rows("small", timings, threads=2, cores=2)
    assert rows[2]["x_fair"] == pytest.approx(0.6 / 0.35)


def test_busy_processes_are_as_many_as_wanted_and_end():
    with load.busy_processes(1.3) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.poll() is not None for process in processes)
    with load.busy_processes(0) as processes:
        assert processes == []


def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "LOADS", (0, 1))
    monkeypatch.setattr(load, "SECONDS", 0.02)
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    started = time.monotonic()
    path = tmp_path / "results.json"
    code = cli.main(["load", "--size", "tiny", "--threads", "2", "--json", "--out", str(path)])
    document = json.loads(path.read_text())
    assert code == 0 and document["wrong"] == {} and time.monotonic() - started < 60
    assert [(row["dims"], row["candidate"]) for row in document["rows"]] == [
        (f"tiny B=2 T=16, {busy} busy", name) for busy in (0, 1) for name in ("minillm", "minillm, 1 thread")]
    assert all(row["median_ms"] > 0 and row["x_fair"] > 0 and row["samples"] >= 5 for row in document["rows"])
