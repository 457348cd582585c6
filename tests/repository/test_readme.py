"""The README's Python runs as it is pasted, each block alone, and all that the documents name exists."""
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md"]
VARIABLE = re.compile(r"\bMINILLM_[A-Z_]+\b")
MACRO = re.compile(r"# *define (MINILLM_[A-Z_]+)")


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(block, {"__name__": "__main__"})
    assert capsys.readouterr().out                                      # each says what it has done
    assert (tmp_path / "my_model" / "model.safetensors").exists() == ("my_model" in block)


def test_python_blocks_are_there():
    assert len(BLOCKS) >= 2


def test_the_two_commands_stand_alone_on_a_line():
    commands = re.findall(r"^    (.*\.venv.*)$", TEXT, re.M)
    assert len(commands) == 2 and all("python3 -m venv" in command and "pip install" in command for command in commands)
    assert "minillm quickstart" in commands[0] and "pytest" in commands[1]


def test_the_test_command_leaves_out_no_folder(pytestconfig):
    """As pytest would by default, for its name: tests/build."""
    left_out = [path for path in (ROOT / "tests").rglob("test_*.py") for part in path.relative_to(ROOT).parts
                if any(fnmatch(part, pattern) for pattern in pytestconfig.getini("norecursedirs"))]
    assert not left_out


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:minillm|csrc|tests|benchmarks)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / name).parent.joinpath(path).exists(), path


def test_files_of_the_tree_exist():
    """Each line of the file tree names a path below the last line without indentation,
    and more files of the same folder."""
    tree = re.search(r"```\n(minillm/.*?)```", TEXT, re.S)[1]
    folder, checked = "", 0
    for line in tree.splitlines():
        path, *words = re.split(r"\s{2,}", line.strip())
        if not line.startswith(" "):
            folder = path.split()[0]
        names = path.split() if line.startswith(" ") else [""]
        names += [re.sub(r"^(?=[^/]*$)", str(Path(names[0]).parent) + "/", word)
                  for word in re.findall(r"[\w/]+\.py\b", " ".join(words))]
        for name in names:
            assert any((ROOT / folder / parent / name).exists()
                       for parent in ("", Path(names[0]).parent)), (folder, name)
            checked += 1
    assert checked > 30


def test_every_environment_variable_is_in_the_table():
    tracked = subprocess.run(["git", "ls-files", "*.py", "*.h", "*.cpp", "*.cu*", "*.sh", ".ci"], cwd=ROOT,
                             capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    texts = [(ROOT / path).read_text(encoding="utf-8") for path in tracked if os.path.isfile(ROOT / path)]
    macros = set().union(*(MACRO.findall(text) for text in texts))
    used = set().union(*map(VARIABLE.findall, texts)) - macros
    told = set(VARIABLE.findall("\n".join(re.findall(r"^\| `.*$",
                                                     (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M))))
    assert used == told
