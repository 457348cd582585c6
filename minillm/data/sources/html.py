"""The text of HTML pages by resiliparse (Bevendorff et al. 2018), which also finds the encoding.

Parsing and extraction are quadratic in nesting, in attributes, and in what the next version adds, and a page of 100 KB
can cost minutes. So they run in a process of their own (html_worker.py) that is ended when a page costs too much.
"""
from importlib.util import find_spec

from ...worker import Worker
from . import html_worker
from .report import Unusable

SECONDS, SECONDS_PER_BYTE = 1.0, 5e-7     # of CPU time for a page; ordinary ones take 2e-7 a byte
WORKER = Worker(html_worker.__file__)


def html_text(page: bytes, all_text: bool = False) -> str:
    """The main text of a page, or all of it, with menus and footers. Raises Unusable if there is none."""
    if find_spec("resiliparse") is None:
        raise Unusable("of a kind that needs pip install 'minillm[data]'")
    head = html_worker.HEAD.pack(all_text, SECONDS + SECONDS_PER_BYTE * len(page))
    try:
        text = WORKER.ask(head + page).decode()
    except (BrokenPipeError, EOFError):
        raise Unusable("too costly to parse") from None
    if not text.strip():
        raise Unusable("without text" if all_text else "without main text")
    return text
