"""What tests of the trace's page share: a recording, and its page open in a browser."""
import functools

import pytest
from pages import browser  # noqa: F401  (a fixture)

from minillm import GPT, GPTConfig
from minillm.study.trace.page import page
from minillm.study.trace.record import record

EVIL = "</script><b onclick=alert(1)>&\n"
TEXTS = (EVIL, " cat", "the")


@functools.cache
def recording():
    """A training and a decoding step of a model with a block, on three tokens, the first of them evil."""
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=12), seed=3)
    return record(model, [0, 2, 1], text=lambda i: TEXTS[i] if i < len(TEXTS) else f"word {i}")


@pytest.fixture(scope="module")
def recorded():
    return recording()


@pytest.fixture(scope="module")
def file(recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "trace.html"
    path.write_text(page(recorded), encoding="utf-8")
    return path


class Opened:
    """A page of the file, and what went wrong: requests to anything but the file, and complaints of the console."""

    def __init__(self, browser, file, address="", width=1280, scheme="light"):  # noqa: F811
        self.page, self.complaints = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme), []
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: request.url.startswith(file.as_uri())
                     or self.complaints.append(request.url))
        self.page.goto(file.as_uri() + address)
        self.page.wait_for_selector("#costs table")

    def __enter__(self):
        return self.page

    def __exit__(self, *error):
        self.page.close()
        assert not self.complaints


@pytest.fixture
def opened(browser, file):  # noqa: F811
    """Opens the page: opened("#call-2", width=390, scheme="dark")."""
    return lambda address="", **how: Opened(browser, file, address, **how)
