"""A program that answers requests from a child process: whatever ends it, the next request has its own answer."""
import os
import select
import signal

import pytest

from minillm.worker import Worker

PROGRAM = """
import os, struct, sys
while head := sys.stdin.buffer.read(8):
    request = sys.stdin.buffer.read(*struct.unpack("<Q", head)).decode()
    if request == "end":
        os._exit(1)
    answer = str(os.getpid()) if request == "pid" else os.environ.get(request, request)
    sys.stdout.buffer.write(struct.pack("<Q", len(answer)) + answer.encode())
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return str(tmp_path / "program.py")


@pytest.fixture
def worker(program):
    worker = Worker(program)
    yield worker
    worker.stop()


def test_answers_of_any_length_come_from_one_process_of_another_session(worker):
    assert not worker.running()
    first = int(worker.ask(b"pid"))
    assert [worker.ask(b"x" * n) for n in (0, 1, 10 ** 6)] == [b"", b"x", b"x" * 10 ** 6]
    assert int(worker.ask(b"pid")) == first != os.getpid() and worker.running()
    assert os.getsid(first) != os.getsid(0)                                     # Ctrl-C in a terminal ends it not


def test_a_request_that_ends_the_process_is_told_and_the_next_is_answered(worker):
    first = worker.ask(b"pid")
    with pytest.raises((BrokenPipeError, EOFError)):
        worker.ask(b"end")
    assert worker.ask(b"next") == b"next" and worker.ask(b"pid") != first


def test_a_process_that_was_killed_between_requests_costs_none(worker):
    os.kill(int(worker.ask(b"pid")), signal.SIGKILL)
    worker.process.wait()
    assert worker.ask(b"next") == b"next"


def test_the_answer_that_an_interrupt_left_behind_is_nobody_s(worker, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    worker.ask(b"")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Worker, "read", interrupted)
        worker.ask(b"the answer that nobody reads")
    assert worker.ask(b"next") == b"next"


def test_the_child_of_a_fork_starts_its_own(worker):
    """Also where another thread was asking at that moment, whose lock nobody gives back in the child."""
    first, (readable, writable) = worker.ask(b"pid"), os.pipe()
    with worker.lock:
        if not (child := os.fork()):
            try:
                os.write(writable, worker.ask(b"pid"))
            finally:
                os._exit(0)
    answered, _, _ = select.select([readable], [], [], 60)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert answered and os.read(readable, 99) != first == worker.ask(b"pid")
    os.close(readable)
    os.close(writable)


def test_the_program_sees_the_variables_that_are_named(program, monkeypatch):
    monkeypatch.setenv("SEEN", "yes")
    monkeypatch.setenv("SECRET", "yes")
    worker = Worker(program, ["SEEN", "MISSING"])
    assert [worker.ask(name) for name in (b"SEEN", b"SECRET", b"MISSING")] == [b"yes", b"SECRET", b"MISSING"]
    worker.stop()
