"""A program in a child process that answers one request at a time: for libraries that nothing else can stop.

The program sets limits of its own, of CPU time and memory, and a request that costs more ends its process. A request on
its standard input is a length (LENGTH) and so many bytes, and so is the answer on its standard output.
"""
import atexit
import os
import struct
import sys
from collections.abc import Collection
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

LENGTH = struct.Struct("<Q")


class Worker:
    """The process, started when it is first needed and again when it has ended."""

    def __init__(self, program: str, environment: Collection[str] | None = None):
        """program: a file of Python. environment: the variables that it gets to see (None: all)."""
        self.program, self.environment = program, environment
        self.forget()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """In the child of a fork: the process answers the parent alone, and the lock may be held by its threads."""
        self.process: subprocess.Popen | None = None
        self.lock = Lock()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask(self, request: bytes) -> bytes:
        """The answer. Raises BrokenPipeError or EOFError for a request that ended the process."""
        with self.lock:
            try:
                if not self.running():
                    self.start()
                self.send(request)
                return self.read(*LENGTH.unpack(self.read(LENGTH.size)))
            except BaseException:           # ended; or interrupted: its answer must not be taken for the next one's
                self.stop()
                raise

    def start(self) -> None:
        import subprocess
        seen = None if self.environment is None else {name: os.environ[name] for name in self.environment
                                                      if name in os.environ}
        self.process = subprocess.Popen([sys.executable, "-P", self.program], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=seen,
                                        start_new_session=True)                  # Ctrl-C is for the parent

    def send(self, request: bytes) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.write(LENGTH.pack(len(request)))
        self.process.stdin.write(request)
        self.process.stdin.flush()

    def read(self, size: int) -> bytes:
        assert self.process and self.process.stdout
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None
