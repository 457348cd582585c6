"""Which compiled kernels are loaded: built where there is a compiler, forced by MINILLM_CPU, and none at all."""
import os
import shutil
import subprocess
import sys

import pytest

from minillm import GPT, GPTConfig
from minillm.__main__ import main
from minillm.kernels import select as registry
from minillm.kernels.select import choices


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler: NumPy only is right here")
def test_kernels_are_built_where_there_is_a_compiler():
    assert registry._cpp is not None or os.environ.get("MINILLM_CPU") == "none", "pip install -e . must have built them"


def run_python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=60)


def test_forced_instruction_set():
    program = "from minillm.kernels import select; select.check_kernels(); print(select._cpp)"
    scalar = run_python(program, MINILLM_CPU="scalar")
    assert "scalar" in scalar.stdout or "not built" in scalar.stderr
    wrong = run_python("import minillm; minillm.select('numpy')", MINILLM_CPU="z80")
    assert wrong.returncode and "MINILLM_CPU must be one of" in wrong.stderr


@pytest.mark.parametrize("command", ["info", "data dedup nowhere --out x", "gradcheck --op gelu"])
def test_a_wrong_instruction_set_is_one_line(command):
    """In commands that run kernels and in those that do not; checked before anything else is done."""
    done = subprocess.run([sys.executable, "-m", "minillm", *command.split()], capture_output=True, text=True,
                          env={**os.environ, "MINILLM_CPU": "z80"}, timeout=60)
    said = f"minillm {command.split()[0]}: MINILLM_CPU must be one of amx, avx512, avx2, scalar, none: got 'z80'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_broken_extension_is_one_line_in_a_command_and_raises_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(registry, "_problem", ImportError("undefined symbol"))
    assert main(["info"]) == 1 and capsys.readouterr().err == "minillm info: undefined symbol\n"
    for use in (lambda: registry.select("numpy"), lambda: choices("gelu"), lambda: GPT(GPTConfig())):
        with pytest.raises(ImportError, match="undefined symbol"):
            use()


def test_without_kernels_numpy_does_everything():
    """As if nothing had been built: everything works, and a backend asked for by name says how to build it."""
    code = ("from minillm.__main__ import main\n"
            "assert main(['gradcheck', '--model']) == 0 and main(['info']) == 0\n"
            "assert main(['gradcheck', '--op', 'gelu', '--backend', 'cpu']) == 1")
    done = run_python(code, MINILLM_CPU="none")
    assert done.returncode == 0, done.stderr
    assert "everything runs on NumPy" in done.stdout and "not built: pip install" in done.stderr
