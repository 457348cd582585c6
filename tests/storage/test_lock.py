"""One process at a time writes a run; what a killed one left blocks nobody."""
import platform
import re
import signal
import subprocess
import sys
import threading

import pytest

from minillm.storage import lock
from minillm.storage.lock import exclusive

NODE = platform.node() or "?"
HOLDER = """
import sys, time
from minillm.storage.lock import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_another_process_is_refused_and_named(holder, tmp_path):
    with pytest.raises(BlockingIOError, match=f"process {holder.pid} is at work there"), exclusive(tmp_path):
        pass


def test_a_process_of_another_machine_is_named_with_it(monkeypatch, holder, tmp_path):
    """As on a file system that several share, where a number alone would lead to the wrong process."""
    monkeypatch.setattr(lock.platform, "node", lambda: "elsewhere")
    named = f"process {holder.pid} on {NODE} is at work there"
    with pytest.raises(BlockingIOError, match=re.escape(named)), exclusive(tmp_path):
        pass


def test_a_killed_process_blocks_nobody(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with exclusive(tmp_path):
        pass


def test_a_thread_may_lock_again_but_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with exclusive(tmp_path / "." / "run"):
                pass
        except BlockingIOError as error:
            refused.append(error)

    with exclusive(tmp_path / "run"), exclusive(tmp_path / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        child = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path / "run")], capture_output=True, text=True)
    assert len(refused) == 1 and "BlockingIOError" in child.stderr
    other()
    assert len(refused) == 1
