"""A rank's process and the child that works in it: signals reach the child, and one that ends it is told."""
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks have a child on Linux only")
BEFORE = "import os, signal, sys, time\nfrom minillm.launch import watched\nparent = os.getpid()\nwatched()\n"


def rank(work, **more):
    return subprocess.Popen([sys.executable, "-c", BEFORE + work], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, "PMI_RANK": "1", "PMI_SIZE": "2", **more})


@pytest.mark.parametrize("name, more", [("SIGKILL", ", perhaps for want of memory"), ("SIGSEGV", "")])
def test_a_signal_that_ends_the_child_is_told(name, more):
    process = rank(f"os.kill(os.getpid(), signal.{name})")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert said.startswith(f"minillm: rank 1: ended by {name}{more}; the run ends here") and said.count("\n") == 1


def test_the_child_s_exit_code_is_the_rank_s_and_nothing_is_said():
    process = rank("print(os.getppid() == parent); sys.exit(3)")
    assert process.communicate(timeout=60) == ("True\n", "") and process.returncode == 3


@pytest.mark.parametrize("name, code", [("SIGTERM", 7), ("SIGINT", 7), ("SIGHUP", 128 + signal.SIGHUP)])
def test_signals_to_the_rank_reach_the_child_once(name, code):
    process = rank("""
signal.signal(signal.SIGHUP, signal.SIG_DFL)                # whatever nohup has made of it
caught = []
for each in (signal.SIGTERM, signal.SIGINT):
    signal.signal(each, lambda *_: caught.append(1))
print("ready", flush=True)
while not caught:
    time.sleep(0.01)
time.sleep(0.05)
sys.exit(7 if caught == [1] else 8)""")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=60)[1] == "" and process.returncode == code


def test_the_child_ends_with_the_rank():
    process = rank("print(os.getpid(), flush=True); time.sleep(60)")
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    limit = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and "Z" not in state_of(child) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}") or "Z" in state_of(child)


def state_of(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_one_process_alone_has_no_child():
    process = rank("print(os.getpid() == parent)", PMI_SIZE="1")
    assert process.communicate(timeout=60)[0] == "True\n"
