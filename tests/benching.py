"""What the tests of the benchmarks share: small sizes, fixed limits, results as JSON."""
import json
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as cli
from benchmarks import machine, measure, workers

ROOT = Path(benchmarks.__file__).resolve().parent.parent
SMALL = ["--dims", "B=1,T=8,C=16,V=31", "--threads", "1"]
PEAKS = {"memory": {"gbs": 10.0, "by": "copy"}, "float32": {"gflops": 100.0, "by": "numpy"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No measuring of limits, short bursts one right after the other, and the environment put back afterwards."""
    for name in cli.THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(machine, "peaks", lambda threads, dtypes: PEAKS)
    hurried(monkeypatch)


def hurried(monkeypatch):
    """Times are not what is tested: bursts of 1 ms, and no pauses between candidates, which would be most of a test."""
    monkeypatch.setattr(measure.interleave, "__defaults__", (None, 0.001, *measure.interleave.__defaults__[2:]))
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(workers, "PAUSE", 0)


def run_json(tmp_path, *arguments):
    path = tmp_path / "results.json"
    code = cli.main([*arguments, *SMALL, "--json", "--out", str(path)])
    return code, json.loads(path.read_text())


EMPTY = {"date": "2026-01-01", "peaks": {}, "rows": [], "wrong": {}, "skipped": {},
         "machine": {"cpu": "a CPU", "threads": 1, "cores": 1, "flags": [], "numpy": "2", "blas": "b", "torch": None,
                     "minillm_kernels": "scalar", "load": 0.0}}


def tokenizer_row(op, dims, direction, candidate, mbs):
    return {"op": f"tokenizer {op}", "dims": dims, "dtype": "uint16", "direction": direction, "candidate": candidate,
            "median_ms": 1500.0, "low_ms": 1.0, "high_ms": 2.0, "mbs": mbs, "peak_rss_mb": 99.0, "x_minillm": 1.0}
