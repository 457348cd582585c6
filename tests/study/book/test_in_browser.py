"""The HTML on a phone and on a desk, in both themes: no page scrolls sideways, nothing is asked of the network."""
from pages import browser, contrast  # noqa: F401  (browser is a fixture)

from minillm.study.book import build

CONTENTS = """
part ops: Ops
@layernorm @attention @grpo_loss
part appendices: Appendices
@answers @kernels-cpu @references @index
"""


def test_pages(browser, tmp_path):  # noqa: F811
    build.write_html(build.read_book(contents=CONTENTS), tmp_path)
    for width in (390, 1280):
        for theme in ("light", "dark"):
            page, asked = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme), []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            for path in sorted(tmp_path.glob("*.html")):
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width, path.name
            text, back = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
            assert contrast(text, back) > 7 and all(url.startswith("file://") for url in asked)
            page.close()
