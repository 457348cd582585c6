"""Steps in processes of their own: one that hangs or crashes costs its own item, and the next go on in another.

A step's program gets its items as JSON in its last argument and prints one line of JSON an item. It has a time limit
for each of them; what it answers goes on to the caller at once.
"""
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass

STARTING_S = 30                             # for Python, CUDA and perhaps PyTorch to start, on top of the first item
GIVE_UP = 3                                 # items of a step that may fail by hanging or crashing


@dataclass(frozen=True)
class Step:
    """`command` and JSON of `items`: a program that prints a line an item, each in `limit_s` seconds."""

    name: str
    command: tuple
    items: list
    limit_s: float
    share: float = 1.0                      # it begins only before this part of all the time is over


class NotBuilt(Exception):
    """What a step would measure does not exist in this build; the text says what."""


class Died(Exception):
    """A step's process ended or was ended before it answered; the text says how."""


class Process:
    """A step's process from some item on. Ends with us: it reads our end of its standard input."""

    def __init__(self, command, items):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*command, json.dumps(items)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, limit_s):
        """The next line's JSON; raises Died."""
        try:
            line = self.lines.get(timeout=limit_s)
        except queue.Empty:
            raise Died(f"did not end within {limit_s:.0f} s: killed") from None
        if line is None:
            raise Died(self.last_words())
        try:
            return json.loads(line)
        except ValueError:
            raise Died(f"printed no JSON: {line[:200].strip()}") from None

    def last_words(self):
        """How it ended, and the last line of what it said."""
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "closed its output and did not end: killed"
        self.errors.seek(0)
        said = [line.strip() for line in self.errors.read().splitlines() if line.strip()]
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"ended with {ended}" + (f": {said[-1][:300]}" if said else "")

    def end(self):
        """Kill it and what it started; never wait for long, since the kernel of a GPU may hold a process."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self.process.stdin.close()
        self.errors.close()


def run(step, answered, seconds_left):
    """Run a step; answered(item, answer or None, problem or None) after each item.

    seconds_left: () -> seconds; what does not fit is answered with the problem "no time".
    """
    todo, failures = list(step.items), 0
    while todo:
        if seconds_left() <= 0 or failures == GIVE_UP:
            for item in todo:
                answered(item, None, "no time" if failures < GIVE_UP else f"left out after {GIVE_UP} failures")
            return
        done, problem = run_until_it_fails(step, todo, answered, seconds_left)
        todo = todo[done:]
        if problem:
            failures += 1
            answered(todo.pop(0), None, problem)


def run_until_it_fails(step, items, answered, seconds_left):
    """(how many items one process answered, why it did not answer the next, if it died)."""
    process = Process(step.command, items)
    try:
        for done, item in enumerate(items):
            left = seconds_left()
            if left <= 0:
                return done, None
            limit = step.limit_s + (STARTING_S if done == 0 else 0)
            try:
                answer = process.answer(min(limit, left))
            except Died as died:
                late = limit > left and "within" in str(died)
                return done, "no time" if late else str(died)
            answered(item, answer, None)
        return len(items), None
    finally:
        process.end()


# ---- the other side ----

def watch_parent():
    """End this process as soon as the parent's end of our standard input is closed, even within a kernel."""
    def watch():
        while os.read(0, 4096):                         # not by sys.stdin, whose lock would abort our exit
            pass
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def answer_each(function, items):
    """The program of a step: function(item) -> JSON; {"not_built": what} where it says so."""
    watch_parent()
    for item in items:
        try:
            answer = function(item)
        except NotBuilt as what:
            answer = {"not_built": str(what)}
        print(json.dumps(answer), flush=True)
