"""Steps of the GPU benchmark in their processes: what hangs, crashes or talks nonsense costs its own item only."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_runner

FAKE = """
import os, sys, time
from benchmarks import gpu_runner
def work(item):
    if item == "hang":
        time.sleep(100)
    if item == "crash":
        os.kill(os.getpid(), 11)
    if item == "raise":
        raise RuntimeError("cuStreamSynchronize failed with CUDA error 719")
    if item == "noise":
        print("not JSON", flush=True)
    return os.getpid() if item == "pid" else item
import json
gpu_runner.answer_each(work, json.loads(sys.argv[-1]))
"""


def fake(items, limit_s=1.0, name="beside fake"):
    return gpu_runner.Step(name, (sys.executable, "-c", FAKE), items, limit_s)


def run(step, seconds_left=lambda: 100.0):
    found = []
    gpu_runner.run(step, lambda item, answer, problem: found.append((item, answer, problem)), seconds_left)
    return found


def test_what_hangs_crashes_or_raises_costs_its_own_item():
    found = run(fake(["a", "hang", "crash", "b"]))
    assert [item for item, _, _ in found] == ["a", "hang", "crash", "b"]
    assert [answer for _, answer, _ in found] == ["a", None, None, "b"]
    assert found[1][2] == "did not end within 1 s: killed" and found[2][2] == "ended with signal SIGSEGV"


def test_an_exception_is_told_in_one_line():
    (_, _, problem), = run(fake(["raise"]))
    assert problem == "ended with exit code 1: RuntimeError: cuStreamSynchronize failed with CUDA error 719"


def test_nonsense_is_told_and_a_step_is_given_up(monkeypatch):
    monkeypatch.setattr(gpu_runner, "GIVE_UP", 1)
    found = run(fake(["noise", "a"]))
    assert found == [("noise", None, "printed no JSON: not JSON"), ("a", None, "left out after 1 failures")]


def test_without_time_nothing_starts():
    step = gpu_runner.Step("beside fake", ("/nothing/of/the/kind",), ["a", "b"], 1)
    assert run(step, lambda: 0.0) == [("a", None, "no time"), ("b", None, "no time")]


def test_the_budget_ends_a_step_and_is_no_fault(tmp_path):
    document = gpu.run_all_steps([fake(["hang", "a"], limit_s=50)], tmp_path, True, minutes=0.02)
    assert document["left_out"] == {"beside fake hang": "no time", "beside fake a": "no time"}
    assert document["faults"] == [] and json.loads((tmp_path / "gpu.json").read_text()) == document


def test_faults_are_lines_and_a_peer_s_are_none(tmp_path):
    steps = [fake(["crash"]), fake(["raise"], name="timing torch FLASH")]
    document = gpu.run_all_steps(steps, tmp_path, True, minutes=5)
    assert document["faults"] == ["beside fake crash: ended with signal SIGSEGV"]
    assert "719" in document["left_out"]["timing torch FLASH raise"]
    assert document["faults"][0] in (tmp_path / "gpu.md").read_text()


def ended(pid):
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.05)


def test_a_killed_parent_leaves_its_results_and_no_process(tmp_path):
    program = (f"from pathlib import Path; from benchmarks import gpu, gpu_runner\n"
               f"gpu.run_all_steps([gpu_runner.Step('beside fake', ({sys.executable!r}, '-c', {FAKE!r}),"
               f" ['pid', 'hang'], 90)], Path({str(tmp_path)!r}), True, 5)")

    def results():
        file = tmp_path / "gpu.json"
        return json.loads(file.read_text())["beside"] if file.exists() else {}
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_for(results)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: ended(results()["fake"]))
