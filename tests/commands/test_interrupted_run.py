"""A run that was stopped before its first validation, and the checkpoint in it, serve every command."""
import os
import signal

import pytest

from minillm.__main__ import main
from minillm.progress import Progress

SHAPE = [f"--set={k}={v}" for k, v in {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 32}.items()]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that got Ctrl-C in its third step."""
    folder, patch = tmp_path_factory.mktemp("stopped"), pytest.MonkeyPatch()
    (folder / "text.txt").write_text("Some words to read, and some more of them.\n" * 200)

    def interrupt(self, done, total, text=""):
        if self.label == "training" and done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(Progress, "__call__", interrupt)
    arguments = ["train", "--data", folder / "text.txt", "--out", folder / "run", "--vocab-size", 270, *SHAPE]
    assert main([str(argument) for argument in arguments]) == 130
    patch.undo()
    return folder


@pytest.mark.parametrize("model", ["run", "run/last"])
@pytest.mark.parametrize("command", [
    ["generate", "{model}", "-n", "2"], ["eval", "{model}", "--data", "{text}"],
    ["quantize", "{model}", "-o", "{out}", "--data", "{text}"], ["card", "{model}", "-o", "{out}.md"],
    ["sft", "{model}", "--data", "addition", "--out", "{out}", "--set", "train.steps=1"]], ids=lambda c: c[0])
def test_every_command_can_use_it(stopped, tmp_path, capsys, model, command):
    places = {"model": stopped / model, "text": stopped / "text.txt", "out": tmp_path / "out"}
    assert main([argument.format(**places) for argument in command]) == 0, capsys.readouterr().err
