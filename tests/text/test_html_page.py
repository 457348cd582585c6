"""The frame of reports: one style sheet in both themes, an index, and nothing that data can inject."""
import re

import pytest
from pages import browser, check_in_browser, check_report, contrast  # noqa: F401  (browser is a fixture)

from minillm.text.html_page import STYLE, Bar, Section, bars, fold, page, table

EVIL = '<script>alert(1)</script>" onmouseover="x'


@pytest.fixture
def made():
    body = (table(("a", EVIL), [(EVIL, "wide " * 30 + "x" * 300)])
            + bars([Bar(EVIL, 0.5, EVIL, "<pre>" + "y" * 500 + "</pre>"), Bar("none", 0.0, "0")]) + fold(EVIL, "z"))
    return page(EVIL, "<p>lead</p>", [Section("one", EVIL, body), Section("empty", "Empty", "")])


def test_the_frame(made):
    found = check_report(made)
    assert found.ids == ["one"] and "Empty" not in made and "width:50.00%" in made


def test_in_the_browser(made, browser, tmp_path):  # noqa: F811
    (tmp_path / "page.html").write_text(made, encoding="utf-8")
    check_in_browser(browser, tmp_path / "page.html")


def themes():
    """{theme: {variable: colour}} of the style sheet."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    return {name: dict(re.findall(r"--(\w+): (#\w{6});", block)) for name, block in zip(("light", "dark"), blocks)}


def test_every_colour_is_readable_in_both_themes():
    found = themes()
    assert found["light"].keys() == found["dark"].keys()
    used = set(re.findall(r"var\(--(\w+)\)", STYLE.read_text(encoding="utf-8")))
    assert used - found["light"].keys() <= {"hue", "strength", "shade"}
    for colours in found.values():
        rgb = {name: f"rgb({', '.join(str(int(c[i:i + 2], 16)) for i in (1, 3, 5))})" for name, c in colours.items()}
        for ink in ("text", "soft", "accent", "warn"):
            for ground in ("back", "panel"):
                assert contrast(rgb[ink], rgb[ground]) > 4.5, (ink, ground)
