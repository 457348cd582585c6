"""`mpiexec -n N minillm ...` with real processes: the bytes of one, and one clear end where a rank dies or hangs."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minillm.__main__ import main
from minillm.data.sources.stories import stories

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(not MPIEXEC, reason="there is no mpiexec")

SHAPE = [word for name in ("family=qwen3", "n_layer=2", "n_head=2", "n_embd=96", "block_size=16",
                           "train.optimizer=muon", "train.ema=0.9", "train.batch_size=2", "train.accumulate=3",
                           "train.eval_every=4", "train.save_every=4", "train.warmup=2")
         for word in ("--set", name)]
FILES = ("last/model.safetensors", "last/optimizer.safetensors", "model.safetensors", "gradients.csv")


def command(out, ranks, *more):
    launch = [MPIEXEC, "-n", str(ranks)] if ranks else []
    return [*launch, sys.executable, "-m", "minillm", "train", "--data", "texts", "--out", out, "--vocab-size", "600",
            *SHAPE, *more]


def run(place, out, ranks, *more):
    done = subprocess.run(command(out, ranks, *more), cwd=place, capture_output=True, text=True, timeout=120,
                          env=environment())
    return done.returncode, done.stdout, done.stderr


def environment():
    """As from a shell: not as a rank of the mpiexec that may have started the tests; the package from here."""
    root = str(Path(__file__).resolve().parents[2])
    marks = "PMI", "OMPI_COMM", "OMPI_MCA"
    return {k: v for k, v in os.environ.items() if not k.startswith(marks)} | {"PYTHONPATH": root}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts and the run of one process, 12 steps long."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "texts").mkdir()
    for i, text in enumerate(stories(60, 3)):
        (place / "texts" / f"{i}.txt").write_text(text)
    assert run(place, "alone", 0, "--set", "train.steps=12")[0] == 0
    return place


def assert_as_alone(place, out):
    for name in FILES:
        assert (place / "alone" / name).read_bytes() == (place / out / name).read_bytes(), name
    rows = [[line.rsplit(",", 1)[0] for line in (place / one / "log.csv").read_text().splitlines()]
            for one in ("alone", out)]                                  # but for tokens_per_second
    assert rows[0] == rows[1]


def test_ranks_write_the_bytes_of_one_process_and_say_it_once(place):
    code, out, err = run(place, "two", 2, "--set", "train.steps=12", "--json")
    assert code == 0, err
    assert out.count('"verdict"') == 1 and err.count("best validation loss") == 1
    assert_as_alone(place, "two")


def test_ranks_read_the_sources_of_a_mixture_as_one_process_does(place):
    (place / "more").mkdir()
    (place / "more" / "a.txt").write_text("def f(x):\n    return x + 1\n" * 40)
    for out, ranks in (("mixed", 0), ("mixed2", 2)):
        code, said, err = run(place, out, ranks, "--set", "train.steps=5", "--data", "texts", "more", "--mix", "3", "1",
                              "--set", "train.optimizer=adamw", "--set", "train.ema=0")
        assert code == 0 and "of each source: texts " in said, err
    for name in (*FILES, "sources.csv"):
        assert (place / "mixed" / name).read_bytes() == (place / "mixed2" / name).read_bytes(), name


def test_hours_of_ranks_end_by_one_clock_and_one_process_goes_on(place, monkeypatch, capsys):
    timed = ("train", "--out", "timed", "--hours", "0.0001", "--data", "texts", "--vocab-size", "600", "--set",
             "n_layer=1", "--set", "n_embd=32", "--json")
    done = subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-m", "minillm", *timed], cwd=place, text=True,
                          capture_output=True, timeout=120, env=environment())
    assert done.returncode == 0, done.stderr
    state = json.loads((place / "timed" / "last" / "state.json").read_text())
    assert json.loads(done.stdout)["steps"] == state["step"] == state["decay"][1]
    assert (state["settings"]["accumulate"], state["settings"]["batch_size"]) == (2, 4)
    monkeypatch.chdir(place)
    assert main(timed) == 0 and f"resuming from step {state['step']:,}\n" in capsys.readouterr().err


@pytest.mark.parametrize("number, says", [(signal.SIGTERM, "stopped after step"),
                                          (signal.SIGKILL, "its last checkpoint is good"),
                                          (signal.SIGSTOP, "nothing heard from rank")])
def test_a_rank_that_ends_or_hangs_ends_all_and_others_go_on(place, number, says):
    out = f"signal{number}"
    everybody = subprocess.Popen(command(out, 3, "--set", "train.steps=12", "--set", "train.patience=3"), cwd=place,
                                 env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while everybody.poll() is None and not (place / out / "last").exists():
        time.sleep(0.02)
    if everybody.poll() is None:
        subprocess.run(["pkill", f"-{int(number)}", "-n", "-f", f"minillm train .*--out {out} "], check=False)
    said, _ = everybody.communicate(timeout=60)
    if everybody.returncode:                        # 0: the run was over before the signal came
        assert says in said, said
    assert run(place, out, 2, "--set", "train.steps=12")[0] == 0
    assert_as_alone(place, out)


def test_more_ranks_than_micro_batches_is_one_clear_error(place):
    code, _, err = run(place, "many", 4, "--set", "train.steps=2")
    assert code and err.count("train.accumulate must be at least the number of processes, 4") == 1
