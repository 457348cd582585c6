"""What tests of the trace's page share: a recording, and its page open in a browser."""
import functools

import pytest
from pages import browser  # noqa: F401  (a fixture)

from minillm import GPT, GPTConfig
from minillm.study.trace.page import page
from minillm.study.trace.record import record

# The worst contrast of a text on its background (WCAG 2), and whose: backgrounds lie on top of each other, and colours
# may be mixed, so that a canvas has to say what they are.
CONTRAST = """() => {
  const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const over = (under, colour) => {
    for (pixel.fillStyle of [`rgb(${under})`, colour]) pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const back = e => {
    const under = e.parentElement ? back(e.parentElement) : [255, 255, 255], own = getComputedStyle(e).backgroundColor;
    return own === "rgba(0, 0, 0, 0)" ? under : over(under, own);
  };
  const light = rgb => rgb.map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + [0.2126, 0.7152, 0.0722][i] * x, 0.05);
  const shown = [...document.querySelectorAll("body *")].filter(e => e.offsetParent && !e.disabled
    && [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  return shown.map(e => {
    const ground = back(e), ink = over(ground, getComputedStyle(e).color);
    const [low, high] = [ground, ink].map(light).sort((a, b) => a - b);
    return [high / low, e.outerHTML];
  }).reduce((a, b) => a[0] < b[0] ? a : b);
}"""
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
