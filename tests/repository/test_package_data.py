"""What is no Python is installed, too: every tracked file of the package is named by pyproject.toml."""
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_data_file_is_in_a_wheel():
    tracked = subprocess.run(["git", "ls-files", "minillm"], cwd=ROOT, capture_output=True, text=True,
                             check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packages = {package: Path(*package.split(".")) for package in patterns}
    files = [Path(name) for name in tracked if not name.endswith(".py")]
    assert {"style.css", "markdown-it.js", "LICENSE.txt"} <= {path.name for path in files}
    for path in files:
        assert any(path.is_relative_to(folder) and fnmatch(str(path.relative_to(folder)), pattern)
                   for package, folder in packages.items() for pattern in patterns[package]), path
