"""Four readers, five lines each: `minillm --help` and README.md show the same commands, and all of them are there."""
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from minillm.__main__ import main, parser
from minillm.commands.paths import PATHS, article

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_help_shows_five_lines_each(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main(["--help"])
    printed = capsys.readouterr().out
    for reader, steps in PATHS.items():
        lines = printed.partition(f"for {article(reader)}:\n")[2].splitlines()[:6]
        assert [line.startswith("  ") for line in lines] == [True] * 5 + [False], reader
        for line, (command, what) in zip(lines, steps):
            assert re.split(r"\s{2,}", line.strip()) == [command, what] and len(line) <= 120


def test_the_readme_shows_the_same():
    section = README.partition("## Four ways in")[2].partition("\n## ")[0]
    blocks = section.split("\n**")[1:]
    assert [block.partition("**")[0].split(" ", 1)[1] for block in blocks] == list(PATHS)
    for block, steps in zip(blocks, PATHS.values()):
        lines = re.findall(r"^- `([^`]+)`", block, re.M)
        assert lines == [command for command, _ in steps]


@pytest.mark.parametrize("command", [command for steps in PATHS.values() for command, _ in steps])
def test_each_command_is_there(command):
    words = shlex.split(command)
    if words[0] == "minillm":
        parser().parse_args(words[1:])
    else:
        assert words[:2] == ["python", "-m"] and find_spec(words[2])
