"""The examples run as a student runs them, and print what they promise."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1] / "examples"
PRINTED = {"check_your_op.py": "ok   x[", "check_other_frameworks.py": "torch: ", "transformer_block.py": "ok   out_b[",
           "compare_kernels.py": "attention       numpy",
           "train_on_a_string.py": "She sells sea shells by the sea shore."}


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.py")))
def test_it_runs(name, tmp_path):
    done = subprocess.run([sys.executable, HERE / name], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          check=False, env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)})
    assert done.returncode == 0, done.stderr
    assert PRINTED[name] in done.stdout
    if name == "check_your_op.py":
        assert [line.split()[2] for line in done.stdout.splitlines()] == ["FAIL", "FAIL", "ok", "ok"]
