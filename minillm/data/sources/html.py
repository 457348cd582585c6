"""The text of HTML pages by resiliparse (Bevendorff et al. 2018), which also finds the encoding.

Parsing and extraction are quadratic in nesting, in attributes, and in what the next version adds, and a page of 100 KB
can cost minutes. So they run in a process of their own (html_worker.py) that is ended when a page costs too much.
"""
import atexit
import os
import subprocess
import sys
from importlib.util import find_spec
from threading import Lock

from . import html_worker
from .report import Unusable

SECONDS, SECONDS_PER_BYTE = 1.0, 5e-7     # of CPU time for a page; ordinary ones take 2e-7 a byte


class HtmlWorker:
    """The process, started when it is first needed and again when it has ended."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In the child of a fork: the process answers the parent alone."""
        self.process: subprocess.Popen | None = None
        self.lock = Lock()

    def text(self, page: bytes, all_text: bool) -> str:
        """Raises Unusable for a page that ended the process."""
        with self.lock:
            try:
                return self.ask(page, all_text)
            except (BrokenPipeError, EOFError):
                self.stop()
                raise Unusable("too costly to parse") from None
            except BaseException:                    # interrupted: its answer must not be taken for the next one's
                self.stop()
                raise

    def ask(self, page: bytes, all_text: bool) -> str:
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, "-P", html_worker.__file__], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        seconds = SECONDS + SECONDS_PER_BYTE * len(page)
        assert self.process.stdin
        self.process.stdin.write(html_worker.HEAD.pack(len(page), all_text, seconds) + page)
        self.process.stdin.flush()
        return self.read(html_worker.LENGTH.unpack(self.read(html_worker.LENGTH.size))[0]).decode()

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


WORKER = HtmlWorker()
atexit.register(WORKER.stop)
os.register_at_fork(after_in_child=WORKER.forget)


def html_text(page: bytes, all_text: bool = False) -> str:
    """The main text of a page, or all of it, with menus and footers. Raises Unusable if there is none."""
    if find_spec("resiliparse") is None:
        raise Unusable("of a kind that needs pip install 'minillm[data]'")
    text = WORKER.text(page, all_text)
    if not text.strip():
        raise Unusable("without text" if all_text else "without main text")
    return text
