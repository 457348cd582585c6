"""Whole models raced against each other, each in a process of its own, in turns.

One process for all would mix thread pools, allocators and environments: a variable that makes PyTorch keep its memory
would help us too. So the parent starts a worker per candidate, with that candidate's environment, and tells one after
the other over a pipe: run once. The others wait in a blocking read. Memory is each process's own peak (VmHWM).

If not all of them fit into memory together, they race in groups, and the first candidate takes part in every group:
ratios are always between neighbours of one race.
"""
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from itertools import count
from pathlib import Path

from .measure import MIN_ROUNDS, PAUSE, order, summary

WARM_UP = 3             # runs before the first timed one; their values are compared
FOREIGN = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_PRELOAD")


class WorkerError(RuntimeError):
    """A worker could not be built, or a run failed; the message is the worker's own."""


class Worker:
    """A process that holds one candidate. `values`: what its warm-up runs returned."""

    def __init__(self, candidate, task, job):
        """candidate: dict with name, module, env and options; task: a function of that module; job: its argument."""
        self.name = candidate["name"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.workers"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=environment(candidate.get("env", {}), job["threads"]))
        options = {"module": candidate["module"], "task": task, "job": job | candidate.get("options", {})}
        self.values = [self.ask(options)["value"]] + [self.run()["value"] for _ in range(WARM_UP - 1)]

    def ask(self, message):
        """Send a message and wait for the answer."""
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"the process ended with code {self.process.wait()}"}
        if "error" in answer:
            self.stop()
            raise WorkerError(answer["error"])
        return answer

    def run(self):
        return self.ask("run")

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def environment(extra, threads):
    """The caller's environment without anything that tunes threads or memory; then the candidate's own is added."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    packages = {"PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}   # the same as ours
    return plain | counts | packages | extra


def race(candidates, task, job, same, together, repeat=None, progress=None):
    """Run `task` of every candidate in turns; returns (results, wrong, skipped).

    same(candidate, values, first values) -> what is wrong, or "". together: processes at a time (see `fitting`).
    results: list of {"candidate", "timing", "against" (Timing of the first candidate in the same race), "peak_rss",
    "values"}; wrong: {name: [what]} of those that disagree or fail; skipped: {name: why} of optional ones that fail.
    """
    results, wrong, skipped = [], {}, {}
    groups, rounds, done = split(candidates, together), repeat or MIN_ROUNDS, count(1)
    for group in groups:
        workers = start(group, task, job, same, wrong, skipped)
        try:
            found = take_turns(workers, rounds, lambda: progress and progress(next(done), rounds * len(groups)))
        finally:
            for worker in workers.values():
                worker.stop()
        first = found.get(candidates[0]["name"])
        results += [result | {"against": first and first["timing"]} for name, result in found.items()
                    if name not in {r["candidate"] for r in results}]
    return results, wrong, skipped


def split(candidates, together):
    """Groups of at most `together` (at least two), the first candidate in each."""
    first, *others = candidates
    size = max(1, together - 1)
    return [[first, *others[start:start + size]] for start in range(0, max(1, len(others)), size)]


def fitting(bytes_each, available):
    """How many processes of this size fit into memory at the same time."""
    return max(2, int(0.9 * available // bytes_each))


def start(candidates, task, job, same, wrong, skipped):
    """{name: Worker} of those that can be built and agree with the first; the others go to wrong or skipped."""
    workers, first = {}, None
    for candidate in candidates:
        name = candidate["name"]
        try:
            worker = Worker(candidate, task, job)
        except WorkerError as error:
            if candidate.get("optional"):
                skipped[name] = str(error)
            else:
                wrong[name] = [str(error)]
            continue
        first = first or worker.values
        complaint = same(candidate, worker.values, first)
        if complaint:
            wrong[name] = [complaint]
            worker.stop()
        else:
            workers[name] = worker
    return workers


def take_turns(workers, rounds, progress):
    """Let each run once a round; {name: {"candidate", "timing", "peak_rss", "values"}}."""
    seconds = {name: [] for name in workers}
    peak = dict.fromkeys(workers, 0)
    for turn in range(rounds):
        for name in order(list(workers), turn) if workers else ():
            time.sleep(PAUSE)
            answer = workers[name].run()
            seconds[name].append(answer["seconds"])
            peak[name] = answer["peak_rss"]
        progress()
    return {name: {"candidate": name, "timing": summary(seconds[name]), "peak_rss": peak[name],
                   "values": worker.values} for name, worker in workers.items()}


def serve(messages, answers):
    """The worker's side: the first message builds the candidate and runs it once, every later one runs it again."""
    run = None
    for line in messages:
        try:
            if run is None:
                message = json.loads(line)
                module = import_module(f"benchmarks.{message['module']}")
                run = getattr(module, message["task"])(message["job"])
            answer = timed_run(run)
        except Exception as error:           # the parent decides what to do about it
            answer = {"error": f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed_run(run):
    """A run that returns (value, seconds) has timed a part of itself; the clock is for the others."""
    started = time.perf_counter()
    value = run()
    seconds = time.perf_counter() - started
    if isinstance(value, tuple):
        value, seconds = value
    return {"seconds": seconds, "value": value, "peak_rss": peak_rss()}


def peak_rss():
    """The largest resident memory of this process so far, in bytes; 0 where /proc is missing."""
    return memory_status("VmHWM")


def memory_status(field):
    """A line of /proc/self/status in bytes, such as VmRSS, the resident memory now; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                            # whatever a library prints must not land among the answers
    try:
        serve(sys.stdin, pipe)
    except KeyboardInterrupt:
        pass                                 # Ctrl-C reaches the whole group; the parent reports it
