"""What a start imports: only what is needed before anything is asked for. By sys.modules, since times say little."""
import subprocess
import sys

import pytest

import minillm
from minillm.__main__ import parser
from minillm.commands import COMMANDS

HEAVY = {"numpy", "regex", "dataclasses", "typing", "inspect", "json", "pathlib", "concurrent", "logging", "subprocess",
         "importlib.metadata", "minillm.config", "minillm.ops", "minillm.kernels", "minillm.models", "minillm._cpp"}


def modules_after(program):
    """The modules that a fresh process has imported when the program ends, beyond those of Python's own start; what
    it prints."""
    code = f"""import sys; start = {{*sys.modules}}
try:
    {program}
finally:
    print('\\n', *{{*sys.modules}} - start)"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    printed, _, names = found.stdout.rstrip("\n").rpartition("\n")
    return set(names.split()), printed


def with_parents(names):
    return {name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1)}


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_version_and_help_import_nothing_heavy(words):
    names, printed = modules_after(f"from minillm.__main__ import main; main({words!r})")
    assert not with_parents(names) & HEAVY and ("minillm" in printed)
    assert not {f"minillm.commands.{file}" for file in COMMANDS} & names


def test_help_of_a_command_imports_its_own_file_alone():
    names, printed = modules_after("from minillm.__main__ import main; main(['sft', '--help'])")
    assert "minillm sft runs/mine" in printed and "numpy" not in names
    assert {name for name in names if name.startswith("minillm.commands.")} <= {
        f"minillm.commands.{name}" for name in ("posttrain", "paths", "generation_options", "lora_options")}


def test_no_command_s_options_need_numpy():
    """All of them at once: every file of commands/ imports what it needs inside its functions."""
    names, _ = modules_after("from minillm.__main__ import parser; parser()")
    assert "minillm.commands.chat" in names and not {"numpy", "regex", "minillm.models", "minillm.tokenizer"} & names


def test_importing_minillm_imports_nothing_heavy():
    names, _ = modules_after("import minillm; minillm.__version__; dir(minillm)")
    assert "minillm" in names and not with_parents(names) & HEAVY


def test_a_model_does_not_bring_along_what_only_tools_need():
    names, _ = modules_after("from minillm import GPT")
    assert "numpy" in names
    assert not with_parents(names) & {"subprocess", "importlib.metadata", "email", "concurrent", "matplotlib", "torch"}


def test_public_names_are_what_they_say():
    """Functions stay functions whatever was imported before: gradcheck and generate are modules, too."""
    names, printed = modules_after(
        "import minillm.gradcheck, minillm.generate; from minillm import gradcheck, generate; "
        "print(callable(minillm.gradcheck), callable(generate), minillm.models.__name__)")
    assert printed.strip() == "True True minillm.models"
    assert {*minillm.__all__} <= {*dir(minillm)} and all(getattr(minillm, name) for name in minillm.__all__)
    assert {*minillm.HOME} | {"ops", "optim", "__version__"} == {*minillm.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        exec("minillm.nonsense")
    with pytest.raises(ImportError, match="nonsense"):
        exec("from minillm import nonsense")


def test_every_command_has_options_of_its_own():
    """COMMANDS names what the files add, no more and no less; one parsed alone has the same help."""
    whole = parser()._subparsers._group_actions[0].choices
    assert {*whole} == {*COMMANDS}
    for name in ("train", "eval", "chat"):
        alone = parser(name)._subparsers._group_actions[0].choices
        assert alone[name].format_help() == whole[name].format_help() and {*alone} == {*COMMANDS}


@pytest.mark.parametrize("name", ["nothing", "nothing.more", "ops.nothing", "a/b", ""])
def test_a_name_that_is_not_there_is_an_attribute_error(name):
    assert not hasattr(minillm, name)
