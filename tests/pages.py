"""What tests of HTML pages share: the rules that every page keeps, and a browser where one is installed."""
import re
import shutil
from html.parser import HTMLParser

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Structure(HTMLParser):
    """Ids, links to them, tags and attributes of a page; every tag must be closed by its own."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.anchors, self.tags, self.attributes = [], [], [], set(), set()
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.ids += [value for name, value in attributes if name == "id"]
        self.anchors += [value[1:] for name, value in attributes if name == "href" and value.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_report(html):
    """It needs no network and no script, fits a phone, has both themes, and its index leads somewhere."""
    found = Structure(html)
    assert html.startswith("<!doctype html>") and '<html lang="en">' in html and '<meta charset="utf-8">' in html
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "color-scheme: light dark" in html and "@media (prefers-color-scheme: dark)" in html
    assert not {"script", "link", "img", "iframe", "base"} & found.tags and "src" not in found.attributes
    assert not any(name.startswith("on") for name in found.attributes)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL))
    assert len(set(found.ids)) == len(found.ids) and found.anchors and set(found.anchors) <= set(found.ids)
    return found


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def check_in_browser(browser, path):
    """At both widths and in both themes: no sideways scroll with everything unfolded, nothing asked of the network, and
    colours that differ between the themes and from their background."""
    backgrounds = set()
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            page, asked = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme), []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            text, back = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
            backgrounds.add((scheme, back))
            assert contrast(text, back) > 7 and asked == [path.as_uri()]
            page.close()
    assert len({back for _, back in backgrounds}) == 2


def contrast(first, second):
    """The ratio of WCAG 2 of two CSS colours rgb(r, g, b)."""
    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
