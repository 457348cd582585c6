"""Answers in Markdown on the chat page: what is rendered, and that a model's text can bring nothing else."""
import hashlib
import json

import pytest
from chatting import ask, browser, page, served, talker  # noqa: F401  (fixtures)

from minillm.serve.app import HERE

EVIL = [
        "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "<svg onload=window.hit=1>",
        "[link](javascript:window.hit=1)", "[data](data:text/html,<script>window.hit=1</script>)",
        "[odd](JaVaScRiPt:window.hit=1)", "[tab](java\tscript:window.hit=1)", "<javascript:window.hit=1>",
        "![picture](https://evil.example/pixel.png)", "<iframe src=https://evil.example>",
        "<style>*{display:none}</style>",
        "<a href='https://x.example' onclick='window.hit=1'>x</a>",
        '[t](https://x.example "\" onmouseover=window.hit=1")',
        "`<script>window.hit = 1</script>`", "```\n</code></pre><script>window.hit = 1</script>\n```",
        "```<script>window.hit=1</script>\nx\n```", "<form action=https://evil.example><input name=key></form>",
        "|<b>|\n|-|\n|<img src=x onerror=window.hit=1>|", "&lt;script&gt;window.hit = 1&lt;/script&gt;",
        "[a]: javascript:window.hit=1\n\n[a]", "<base href=https://evil.example>"]


def answered(page, text):  # noqa: F811
    """The words of an answer that is `text`, as an element; the server's own answer is replaced."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    body = "".join(f"data: {json.dumps(part)}\n\n" for part in (chunk, usage)) + "data: [DONE]\n\n"
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ask(page, "say it", page.locator(".assistant").count() + 1)
    return page.locator(".assistant .words").last


def test_what_is_rendered(page):
    words = answered(page, "# Title\n\nSome **bold**, *soft*, ~~no~~ `code`\nnext line\n\n- one\n- two\n\n3. three\n\n"
                           "> said\n\n```python\nx = 1 < 2\n```\n\n| a | b |\n|:-|-:|\n| 1 | 2 |\n\n"
                           "[page](https://x.example/a?b=1&c=2) https://y.example ![pic](https://z.example/p.png)\n\n---\n")
    for selector, text in (("h1", "Title"), ("strong", "bold"), ("em", "soft"), ("s", "no"), ("p code", "code"),
                           ("ul > li", "one"), ("ol[start='3'] > li", "three"), ("blockquote p", "said"),
                           ("pre > code", "x = 1 < 2\n"), ("thead th", "a"), ("tbody td", "1"), ("a", "page")):
        assert words.locator(selector).first.text_content() == text
    assert words.locator("p br, hr").count() == 2 and words.locator("li p, img").count() == 0
    assert words.locator("td").last.evaluate("cell => getComputedStyle(cell).textAlign") == "right"
    links = words.locator("a").evaluate_all("all => all.map(a => [a.href, a.target, a.rel])")
    assert [href for href, _, _ in links] == ["https://x.example/a?b=1&c=2", "https://y.example/",
                                              "https://z.example/p.png"]
    assert all(target == "_blank" and "noopener" in rel and "noreferrer" in rel for _, target, rel in links)
    html = words.inner_html()
    page.reload()
    assert page.locator(".assistant .words").inner_html() == html


def test_a_models_text_brings_no_script(page):
    """Each trick alone and all together: only harmless elements, only links to the web, nothing asked, nothing run."""
    allowed = set("P H1 H2 UL OL LI BLOCKQUOTE PRE CODE EM STRONG S A TABLE THEAD TBODY TR TH TD BR HR DIV".split())
    for text in [*EVIL, "\n\n".join(EVIL)]:
        words = answered(page, text)
        assert set(words.locator("*").evaluate_all("all => all.map(e => e.tagName)")) <= allowed, text
        attributes = words.locator("*").evaluate_all("all => all.flatMap(e => e.getAttributeNames())")
        assert set(attributes) <= {"href", "title", "target", "rel", "class", "start", "style"}, text
        assert set(words.locator("a[href]").evaluate_all("all => all.map(a => a.protocol)")) <= {"https:"}, text
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert "<script>window.hit = 1</script>" in page.locator(".assistant .words").first.inner_text()


@pytest.mark.parametrize("text", ["[" * 5000, "> " * 5000, "*a " * 5000, "- " * 3000 + "x", "`" * 4999, "|a" * 3000],
                         ids=lambda text: text[:2])
def test_odd_text_is_rendered_in_time(page, text):
    answered(page, text)
    seconds = page.evaluate("text => { const from = performance.now();"
                            " showMarkdown(document.createElement('div'), text);"
                            " return (performance.now() - from) / 1000; }", text)
    assert seconds < 2


def test_the_library_is_what_its_authors_published():
    """markdown-it 15.0.3 of npm without its last line, as LICENSE.txt says; another version has another digest."""
    script, licence = ((HERE / "vendor" / name).read_bytes() for name in ("markdown-it.js", "LICENSE.txt"))
    assert hashlib.sha256(script).hexdigest() == "b06c85174d2b1bb6339dfa1f0bc938cea57f62663f132a77abbf651562542443"
    for name in ("markdown-it 15.0.3", "Vitaly Puzrin", "Felix B", "Mathias Bynens", "Joyent"):
        assert name in licence.decode("utf-8")
