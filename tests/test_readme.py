"""The README's Python runs as it stands, and its two commands are where .ci/run looks for them."""
import re
from pathlib import Path

import numpy as np

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 300, (2, 8))
    names = {"np": np, "tokens": tokens, "targets": tokens}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) >= 2
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "my_model" / "model.safetensors").exists()


def test_the_two_commands_stand_alone_on_a_line():
    commands = re.findall(r"^    (.*\.venv.*)$", TEXT, re.M)
    assert len(commands) == 2 and all("python3 -m venv" in command and "pip install" in command for command in commands)
    assert "minillm quickstart" in commands[0] and "pytest" in commands[1]


def test_files_that_are_named_exist():
    root = Path(__file__).parent.parent
    for name in re.findall(r"`((?:minillm|csrc|tests|benchmarks)/[\w./]+)`", TEXT):
        assert (root / name).exists(), name
