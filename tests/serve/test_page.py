"""The chat page: its protocol half under node, the whole in headless Chromium."""
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from chatting import (  # noqa: F401  (some are fixtures)
    ask,
    browser,
    fill,
    page,
    said,
    served,
    talker,
    wait_for,
    wait_for_answers,
)
from pages import contrast

from minillm import serve
from minillm.serve.app import ASSETS
from minillm.text.html_page import STYLE

PAGE = Path(serve.__file__).parent


def test_the_page_needs_nothing_from_elsewhere():
    """No address of another server, no inline script or style (the content security policy forbids them), and no text
    that is read as HTML."""
    html = (PAGE / "page.html").read_text()
    scripts = {name: (PAGE / name).read_text() for name in ("page.js", "conversations.js", "markdown.js")}
    style = (PAGE / "page.css").read_text() + STYLE.read_text()
    named = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert named == ["data:,", "style.css", "page.css", "markdown-it.js", "markdown.js", "conversations.js", "page.js"]
    assert {f"/{name}" for name in named[1:]} <= ASSETS.keys() and all(path.is_file() for path, _ in ASSETS.values())
    assert not re.search(r"<script>|<style|style=|\son\w+=", html) and "url(" not in style and "@import" not in style
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    for script in scripts.values():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
        assert not re.search(r"https?://", script)
    assert set(re.findall(r"fetch\((\w+|\"[^\"]*\")", "".join(scripts.values()))) == {"path", '"v1/models"'}
    ids = set(re.findall(r'element\("(\w+)"\)', scripts["page.js"]))
    assert ids and ids <= set(re.findall(r'id="(\w+)"', html))


def node(expression):
    """The value of an expression over what page.js exports."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    program = f"const page = require({json.dumps(str(PAGE / 'page.js'))}); console.log(JSON.stringify({expression}))"
    return json.loads(subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True).stdout)


def test_events_are_split_wherever_the_network_cuts():
    text = 'data: {"a": 1}\n\ndata: {"b": "\\n"}\n\ndata: [DONE]\n\n'
    assert node(f"page.splitEvents({json.dumps(text)})") == [['{"a": 1}', '{"b": "\\n"}', "[DONE]"], ""]
    split = f"""((whole, rest) => {{ for (const c of {json.dumps(text)}) {{ const [w, r] = page.splitEvents(rest + c);
        whole.push(...w); rest = r; }} return whole; }})([], "")"""
    assert node(split) == ['{"a": 1}', '{"b": "\\n"}', "[DONE]"]


def test_settings_left_alone_are_not_sent():
    plain = {"mode": "chat", "temperature": "0.8", "top_p": "1", "min_p": "0", "repetition_penalty": "1", "top_k": "",
             "max_tokens": "", "seed": "", "stop": "", "system": ""}
    turns = [{"role": "user", "content": "hi"}]
    body = node(f"page.requestBody({json.dumps(plain)}, {json.dumps(turns)}, '')")
    assert body == {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0.8, "logprobs": True,
                    "top_logprobs": 3, "messages": turns}
    full = plain | {"mode": "text", "top_p": "0.9", "top_k": "5", "seed": "0", "stop": "\n", "max_tokens": "7"}
    body = node(f"page.requestBody({json.dumps(full)}, [], 'Once')")
    sent = {"prompt": "Once", "top_p": 0.9, "top_k": 5, "seed": 0, "stop": "\n", "max_tokens": 7}
    assert body.items() >= (sent | {"logprobs": 3}).items()
    for settings in (plain, full):
        assert node(f"Object.keys(page.requestBody({json.dumps(settings)}, [], '', true))").count("logprobs") == 0


def test_tokens_that_make_one_character_are_one_piece():
    tokens = [{"bytes": [97], "logprob": -0.5, "top": []}]
    tokens += [{"bytes": [byte], "logprob": -1, "top": []} for byte in "☃".encode()]
    pieces = node(f"(p => {json.dumps(tokens)}.map(t => p.push(t)))(new page.Pieces())")
    assert [piece and (piece["text"], piece["logprob"]) for piece in pieces] == [("a", -0.5), None, None, ("☃", -3)]
    assert node(r'["a☃", "bytes:\\xe2\\x98", "bytes:"].map(page.bytesOf)') == [
        list("a☃".encode()), [0xE2, 0x98], list(b"bytes:")]


def test_colours_and_percents():
    assert node("[0, -3.4538776, -6.9077553, -50].map(page.hue)") == [120, 60, 0, 0]
    assert node("[0, -0.6931472, -6.9077553].map(page.percent)") == ["100%", "50%", "0.10%"]


def test_the_line_under_an_answer():
    usage = {"prompt_tokens": 3, "completion_tokens": 101}
    for last, rate in ((1050, "100 tokens/s"), (100, "2000 tokens/s"), (40_050, "2.50 tokens/s")):
        line = f"page.summary({json.dumps(usage)}, 'length', 50, {last})"
        assert node(line) == f"3 + 101 tokens · first after 50 ms · {rate} · cut at its longest"


def test_a_server_that_filters_is_not_asked_for_tokens(talker, browser):
    """It would refuse: the answers come as plain text."""
    pytest.importorskip("uvicorn")
    from serving import command
    with command(talker, "--filter") as (_, url):
        page = browser.new_page()
        page.goto(url)
        wait_for(page, "document.getElementById('model').textContent.includes('talker')")
        fill(page, max_tokens=8)
        page.locator("#prompt").fill("the quick fox")
        page.locator("#prompt").press("Enter")
        wait_for_answers(page, 1)
        assert page.locator(".error").count() == page.locator(".assistant span").count() == 0
        page.close()


def test_a_conversation_in_the_browser(page, served, tmp_path):
    """Two turns: the answers are the API's, every token has its colour and its alternatives, the acceptance is told."""
    import httpx
    fill(page, temperature=0, max_tokens=30)
    messages = []
    for number, text in enumerate(("the quick <b>fox</b> ☃", "and the dog?"), 1):
        page.locator("#prompt").fill(text)
        page.locator("#prompt").press("Enter")
        wait_for_answers(page, number)
        messages.append({"role": "user", "content": text})
        answer = httpx.post(served + "/v1/chat/completions", json={"messages": messages, "temperature": 0,
                                                                   "max_tokens": 30}, timeout=60).json()
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        shown = page.locator(".assistant").nth(number - 1).evaluate(
            "turn => [...turn.querySelectorAll('span')].map(s => s.textContent).join('')")
        assert shown == messages[-1]["content"] and said(page)[2 * number - 2] == text
    spans = page.locator(".assistant span").evaluate_all(
        "spans => spans.map(s => [s.dataset.p, getComputedStyle(s).backgroundColor, s.title])")
    assert all(0 < float(p) <= 1 and "%" in title for p, _, title in spans) and len({c for _, c, _ in spans}) > 1
    assert re.search(r"\d+ \+ 30 tokens · first after .* draft tokens accepted",
                     page.locator("small").last.inner_text())
    assert not page.locator(".tokens").last.is_visible() and page.locator(".assistant .words").last.is_visible()
    page.locator("[name=colour]").check()
    assert page.locator(".tokens").last.is_visible() and not page.locator(".assistant .words").last.is_visible()
    picture = page.screenshot(path=tmp_path / "chat.png")
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_the_composer_at_the_bottom(served, browser, scheme, tmp_path):
    """390 pixels wide: no sideways scroll, settings fold away, native controls and the user's words in the theme."""
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(served)
    box = page.locator("#ask").bounding_box()
    assert 780 < box["y"] + box["height"] <= 800 and not page.locator("[name=temperature]").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#fold").click()
    assert page.locator("[name=temperature]").is_visible() and page.locator("#fold[aria-expanded=true]").count() == 1
    fill(page, max_tokens=60)
    page.locator("#fold").click()
    for number in range(1, 4):
        ask(page, "the quick brown fox " * 6, number)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    button = page.locator(".again:visible").bounding_box()
    after = page.locator("#ask").bounding_box()
    assert button["y"] + button["height"] < after["y"]              # in sight, after what was said
    assert after == box and page.evaluate("document.documentElement.scrollHeight") == 800      # the talk scrolls
    colours = page.evaluate("['.user .words', 'body'].map(s => getComputedStyle(document.querySelector(s)).color)")
    assert colours[0] == colours[1]
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    dark = contrast(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(0, 0, 0)") < 2
    assert dark == (scheme == "dark")
    page.screenshot(path=tmp_path / "phone.png")
    page.close()


def test_a_text_is_continued_and_stopped_in_the_browser(page):
    page.locator("[value=text]").check()
    assert not page.locator("[name=system]").is_visible()
    fill(page, max_tokens=250, seed=3)
    page.locator("#prompt").fill("the")
    page.locator("#send").click()
    wait_for(page, "document.querySelectorAll('.assistant span').length > 3")
    if page.locator("#stop").is_enabled():
        page.locator("#stop").click(force=True)
    wait_for_answers(page, 1)
    assert page.locator("#send").is_enabled() and page.locator(".error").count() == 0


def test_who_reads_further_up_is_left_there(page):
    fill(page, max_tokens=60, seed=1)
    ask(page, "the\n" * 30, 1)
    assert page.evaluate("atEnd()")
    page.locator("#prompt").fill("the")
    page.locator("#send").click()
    wait_for(page, "document.querySelectorAll('.assistant')[1]?.querySelectorAll('span').length > 3")
    page.evaluate("document.getElementById('talk').scrollTop = 0")
    wait_for_answers(page, 2)
    assert page.evaluate("document.getElementById('talk').scrollTop") == 0


def test_who_scrolls_up_just_before_a_frame_is_left_there(page):
    """Each piece of the answer has a frame of its own: on a machine that stood still all could come between two frames,
    and nobody would have scrolled."""
    fill(page, max_tokens=30, seed=1)
    ask(page, "the\n" * 30, 1)
    page.evaluate("""() => {
        const frame = requestAnimationFrame, pieces = events;
        window.requestAnimationFrame = f => frame(() => { document.getElementById('talk').scrollTop = 0; f(); });
        window.events = async function* (body) {
            for await (const piece of pieces(body)) { yield piece; await new Promise(frame); }
        };
    }""")
    ask(page, "the", 2)
    assert page.evaluate("document.getElementById('talk').scrollTop") == 0


def test_errors_are_shown_and_the_oldest_turns_forgotten_in_the_browser(page):
    """A conversation that outgrows the context goes on; a message too long by itself is an error, and given back."""
    refused = []
    page.on("response", lambda response: refused.append(response.status) if response.status != 200 else None)
    fill(page, temperature=0, max_tokens=20)
    for number in range(1, 6):
        page.locator("#prompt").fill("the lazy dog and the quick fox " * 3)
        page.locator("#send").click()
        wait_for_answers(page, number)
    assert page.locator(".error").count() == 0 and 400 in refused
    page.locator("#prompt").fill("☃" * 3000)
    page.locator("#send").click()
    wait_for(page, "document.querySelectorAll('.error').length === 1")
    assert "context is 256 tokens" in page.locator(".error").inner_text()
    assert page.locator("#prompt").input_value() == "☃" * 3000 and page.locator("#send").is_enabled()
