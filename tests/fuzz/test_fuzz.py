"""A minute of the fuzzer, always the same cases: python -m tests.fuzz --hours 1 tries others."""
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CASES, SECONDS = 500, 2.0           # of each target at most, beside what it takes to begin: no machine, however fast,
                                    # meets cases that the slower ones have not
NATIVE = ("ops", "caches", "tokenizer", "training", "dedup", "tokenizer_files")         # also under the sanitizers


def run(name, tmp_path):
    journal = tmp_path / "case"
    journal.write_text("0")
    call = f"from tests.fuzz.__main__ import run_here; raise SystemExit(run_here({name!r}, 0, 0, {CASES}, {SECONDS}, " \
           f"{str(journal)!r}))"
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", call], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=250)
    said = f"case {journal.read_text()}, exit code {done.returncode}:\n" + (done.stdout + done.stderr)[-5000:]
    assert done.returncode == 0 and (" 0 faults" in done.stdout or "left out" in done.stdout), said


@pytest.mark.parametrize("name", NATIVE)
def test_cpp(name, tmp_path):
    run(name, tmp_path)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in NATIVE])
def test_python(name, tmp_path):
    run(name, tmp_path)
