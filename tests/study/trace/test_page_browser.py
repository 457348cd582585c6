"""The page of a trace in headless Chromium: by mouse and by keys, from the disk, with nothing asked of any network."""
import re

from pages import browser  # noqa: F401  (browser is a fixture)
from traced import CONTRAST, EVIL, file, opened, recorded  # noqa: F401  (fixtures)

from minillm.study.trace.page import page as html_of

PAINT = """(async () => {                               // a busy machine has not painted yet
    for (let i = 0; i < 500 && !performance.getEntriesByName('first-contentful-paint').length; i++)
        await new Promise(done => setTimeout(done, 10));
    return performance.getEntriesByName('first-contentful-paint')[0].startTime;
})()"""


def call_of(recorded, function, nth=0):
    return [call for call in recorded["calls"] if call["function"] == function][nth]


def array_of(recorded, call, name):
    return recorded["arrays"][next(put["array"] for put in call["outputs"] if put["name"] == name)]


def test_it_opens_from_the_disk_and_shows_what_ran(opened, recorded):
    """The graph has every op of the training step once, and an arrow for each array that one op hands to the next."""
    with opened() as page:
        assert page.title() == page.locator("h1").inner_text()
        ids = page.locator("#graph .node").evaluate_all("nodes => nodes.map(node => Number(node.dataset.call))")
        assert sorted(ids) == [call["id"] for call in recorded["calls"] if call["phase"] != "decode"]
        edges = page.locator("#graph path[data-from]").evaluate_all(
            "paths => paths.map(p => [Number(p.dataset.from), Number(p.dataset.to)])")
        attention, proj = call_of(recorded, "attention_forward"), call_of(recorded, "linear_forward", 1)
        assert [attention["id"], proj["id"]] in edges and [proj["partner"], attention["partner"]] in edges
        page.get_by_label("decoding step").check()
        assert page.locator("#graph .node").count() == sum(call["phase"] == "decode" for call in recorded["calls"])


def test_no_text_of_the_data_becomes_an_element(opened):
    with opened() as page:
        assert page.locator("#top li").first.inner_text() == EVIL.replace(" ", "␣").replace("\n", "\\n")
        assert page.locator("b[onclick]").count() == 0
        assert page.locator("#lens th").nth(1).inner_text() == "0 " + EVIL.replace(" ", "␣").replace("\n", "\\n")


def test_the_panel_of_an_op(opened, recorded):
    """Formulas, lines of source, cost, numbers with all their digits, and the gradient beside them."""
    call = call_of(recorded, "linear_forward")
    with opened() as page:
        page.locator(f"#graph [data-call='{call['id']}']").click()
        panel = page.locator("#panel")
        assert panel.locator("h2").inner_text().startswith("linear") and page.url.endswith(f"#call-{call['id']}")
        assert panel.locator("math").count() == len(recorded["ops"]["linear"]["formulas"])
        text = panel.inner_text()
        for put in call["outputs"] + recorded["calls"][call["partner"]]["outputs"]:
            assert f"{put['source']['file']}:{put['source']['line']}" in text and put["source"]["text"] in text
        assert call["called"]["text"] in text and f"{call['flops']:,}" in text and f"{call['bytes']:,}" in text
        page.get_by_label("Numbers").select_option("all")
        out, dx = array_of(recorded, call, "out"), array_of(recorded, recorded["calls"][call["partner"]], "dx")
        for array in (out, dx):
            cells = panel.locator(f"td[data-array='{array['id']}']")
            assert cells.all_inner_texts() == [repr(value) for value in array["values"]]
        assert "finite differences agree" in text and panel.locator("td.agrees").count() > 10
        assert panel.locator("td.differs").count() == 0
        at = dx["numeric"]["index"][0] if dx["numeric"]["index"] else 0
        below = panel.locator(f"td[data-array='{dx['id']}'][data-index='{at}']")
        assert below.get_attribute("data-below") == f"≈ {dx['numeric']['values'][0]!r}"
        assert below.evaluate("cell => getComputedStyle(cell, '::after').content").startswith('"≈ ')


def test_a_gradient_shows_what_adds_up_to_it_and_leads_on(opened, recorded):
    """The terms are the recorded ones; a term leads to the panel that made it, the browser's way back leads back."""
    backward = recorded["calls"][call_of(recorded, "linear_forward")["partner"]]
    dx = array_of(recorded, backward, "dx")
    sent, came = dx["contributors"], recorded["arrays"][dx["contributors"]["arrays"][0]]
    with opened(f"#call-{backward['id']}") as page:
        page.locator(f"#panel td[data-array='{dx['id']}'][data-index='3']").click()
        card = page.locator("#card")
        terms = [float(text) for text in card.locator("tbody td:nth-child(2)").all_inner_texts()]
        assert terms == sent["top"][3][1::2] + [sent["rest"][3][1]] * bool(sent["rest"][3][0])
        assert abs(sum(terms) - dx["values"][3]) < 1e-5 * sum(map(abs, terms))
        assert card.locator(".sum").inner_text() == f"sum: {dx['values'][3]!r} the terms add up to it"
        card.locator("tbody a").first.click()
        assert page.url.endswith(f"#call-{came['made_by']}/{came['id']}/{sent['top'][3][0]}")
        assert page.locator("#panel h2").inner_text().startswith("attention") and page.locator("td.chosen").count() == 1
        assert repr(came["values"][sent["top"][3][0]]) in card.locator(".number").inner_text()
        page.go_back()
        page.wait_for_function("document.querySelector('#panel h2').textContent.startsWith('linear')")
        assert repr(dx["values"][3]) in card.locator(".number").inner_text()


def test_by_keys_alone(opened):
    """Search, walk, open, walk among the numbers, choose, and back; the focus is seen."""
    with opened() as page:
        focused = "document.activeElement"
        page.keyboard.press("/")
        page.keyboard.type("c_attn")
        assert page.locator("#found").inner_text().startswith("2 of ") and page.locator(".node:not(.dim)").count() == 2
        page.keyboard.press("Enter")
        assert "linear h.0.attn.c_attn, forward" in page.evaluate(f"{focused}.ariaLabel")
        assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
        page.keyboard.press("ArrowRight")
        assert "c_attn, backward" in page.evaluate(f"{focused}.ariaLabel")
        page.keyboard.press("ArrowDown")
        assert "attention h.0.attn, backward" in page.evaluate(f"{focused}.ariaLabel")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        assert page.evaluate(f"{focused}.tagName + {focused}.textContent").startswith("H2attention")
        while page.evaluate(f"{focused}.dataset.index") is None:
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#card .number").inner_text().startswith("out[0, 1, 1] = ")
        page.keyboard.press("Escape")
        assert "attention h.0.attn, forward" in page.evaluate(f"{focused}.ariaLabel")


def test_parts_of_the_graph_fold(opened):
    with opened() as page:
        head = page.get_by_role("button", name="block 0")
        inside = page.locator("#graph .node", has_text="attention").first
        assert inside.is_visible() and head.get_attribute("aria-expanded") == "true"
        head.press("ArrowLeft")
        assert inside.is_hidden() and head.get_attribute("aria-expanded") == "false"
        page.locator("#search").fill("attention")
        assert inside.is_visible()


def test_fill_in_the_blank(opened, recorded):
    """What is hidden is nowhere; a verdict names what was expected; the score counts; Escape leads out."""
    call = call_of(recorded, "layernorm_forward")
    out = array_of(recorded, call, "out")
    with opened(f"#call-{call['id']}") as page:
        page.locator("#practice").click()
        blanks = page.locator(f"#panel td.blank[data-array='{out['id']}']")
        places = [int(blank.get_attribute("data-index")) for blank in blanks.all()]
        html = page.locator("#panel").inner_html()
        assert len(places) == 3 and all(repr(out["values"][i]) not in html for i in places)
        blanks.first.click()
        page.keyboard.type("no number")
        page.keyboard.press("Enter")
        assert "Type a number" in page.locator("#card").inner_text()
        assert "open an op" in page.locator("#score").inner_text()
        page.locator("#card input").fill(str(out["values"][places[0]] * 1.001))
        page.keyboard.press("Enter")
        assert f"Right: it is {out['values'][places[0]]!r}" in page.locator("#card .verdict").inner_text()
        assert page.locator("#score").inner_text() == "1 of 1 right" and blanks.count() == 2
        page.get_by_role("button", name="Next blank").click()
        page.keyboard.type("12345")
        page.keyboard.press("Enter")
        assert page.locator("#card .verdict").inner_text().startswith(
            f"Wrong: you typed 12345, it is {out['values'][places[1]]!r}.")
        assert page.locator("#score").inner_text() == "1 of 2 right" and page.locator("td.wrong").count() == 1
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.dataset.call") == str(call["id"])


def test_attention_lens_update_and_decoding(opened, recorded):
    """Every section shows the recorded numbers."""
    with opened() as page:
        page.get_by_label("Numbers").select_option("all")
        maps = page.locator("#attention figure")
        assert maps.count() == len(recorded["attention"]) == 4
        assert maps.first.locator("tbody tr").nth(1).locator("td").all_inner_texts() == [
            repr(value) if value else "" for value in recorded["attention"][0]["values"][2:]]
        best = recorded["lens"][1]["positions"][1]["top"][0]
        page.locator("#lens button").nth(3).click()
        assert repr(best["probability"]) in page.locator("#lens [role=status]").inner_text()
        bias = next(p for p in recorded["parameters"] if p["name"] == "ln_f.bias")
        page.get_by_label("parameter").select_option("ln_f.bias")
        row = page.locator("#update tbody tr").nth(2).locator("td").all_inner_texts()
        value, gradient = (recorded["arrays"][bias[name]]["values"] for name in ("value", "gradient"))
        wanted = [value[2], gradient[2], 0, 0, *(bias[name][2] for name in ("m_after", "v_after", "update", "after"))]
        assert row == [repr(float(x)) for x in wanted]
        assert page.locator("#decode tbody tr").first.inner_text().split("\t")[1:3] == [
            repr(recorded["decode"]["next"][0][name]) for name in ("logit", "probability")]


def test_both_widths_and_themes(opened, recorded):
    """No sideways scroll with everything unfolded, on the page and in a panel; readable in both themes; on a phone the
    panel covers the rest, which no key reaches."""
    backgrounds = set()
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            with opened("#call-2", width=width, scheme=scheme) as page:
                page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                page.evaluate("document.querySelectorAll('[aria-expanded=false]').forEach(b => b.click())")
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate("(p => p.scrollWidth - p.clientWidth)(document.getElementById('panel'))") <= 0
                backgrounds.add((scheme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
                if width == 1280:
                    ratio, where = page.evaluate(CONTRAST)
                    assert ratio > 4.5, where
                inert = "document.getElementById('tools').inert"
                assert page.evaluate(inert) == (width == 390)
                if width == 390:
                    page.get_by_role("button", name="Close").click()
                    assert not page.evaluate(inert) and page.locator("#panel").is_hidden()
    assert len({back for _, back in backgrounds}) == 2


def test_two_megabytes_paint_within_a_second(opened, recorded, browser, tmp_path):  # noqa: F811
    """Before the first paint nothing is built but the graph: the largest file paints as fast as the smallest."""
    arrays = dict(recorded["arrays"])
    arrays["a1"] = arrays["a1"] | {"shape": [1000, 200], "values": [0.12345678] * 200_000}
    path = tmp_path / "large.html"
    path.write_text(html_of(recorded | {"arrays": arrays}), encoding="utf-8")
    assert path.stat().st_size > 2e6
    made = browser.new_page()
    made.goto(path.as_uri())
    times = [made.evaluate(PAINT)]
    while len(times) < 4 and min(times) > 1000:         # a busy machine is asked again
        made.reload()
        times.append(made.evaluate(PAINT))
    assert min(times) < 1000
    made.close()


def test_what_a_screen_reader_needs(opened):
    """Headings in order, names of buttons, fields and tables, one place of focus in the graph."""
    with opened("#call-2") as page:
        levels = [int(tag[1]) for tag in page.locator("h1, h2, h3").evaluate_all("all => all.map(h => h.tagName)")]
        assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))
        nameless = "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
        assert page.locator("button, input, select, a, summary").evaluate_all(nameless) == 0
        assert page.locator("table").evaluate_all("all => all.filter(t => !t.ariaLabel && !t.caption).length") == 0
        assert page.locator("#graph button[tabindex='0']").count() == 1
        assert page.locator("#graph > svg[aria-hidden=true]").count() == page.locator("#card[aria-live]").count() == 1
        assert re.fullmatch(r"linear h\.0\.attn\.c_attn, forward, gives \(1, 2, 24\)",
                            page.locator("[data-call='2']").get_attribute("aria-label"))


def test_an_address_leads_to_a_number_that_is_folded_and_on_another_page(opened, recorded):
    """A weight is folded at first; what is typed as an address, or followed, unfolds it and turns to its rows."""
    wte = next(array for array in recorded["arrays"].values() if array["name"] == "wte.weight")
    gradient = recorded["arrays"][wte["gradient"]]
    with opened(f"#call-{gradient['made_by']}/{gradient['id']}/90") as page:
        assert page.locator("td.chosen").get_attribute("data-index") == "90"
        assert repr(gradient["values"][90]) in page.locator("#card .number").inner_text()
        page.evaluate("location.hash = '#attention'")
        page.wait_for_function("!document.body.classList.contains('opened')")


def test_a_wrong_gradient_is_said_to_be_wrong(recorded, browser, tmp_path):  # noqa: F811
    """One that is doubled differs from its finite difference, and its terms do not add up to it."""
    backward = recorded["calls"][call_of(recorded, "linear_forward")["partner"]]
    dx = array_of(recorded, backward, "dx")
    values, at = list(dx["values"]), dx["numeric"]["index"][0] if dx["numeric"]["index"] else 0
    values[at] *= 2
    path = tmp_path / "wrong.html"
    wrong = recorded["arrays"] | {dx["id"]: dx | {"values": values}}
    path.write_text(html_of(recorded | {"arrays": wrong}), encoding="utf-8")
    made = browser.new_page()
    made.goto(f"{path.as_uri()}#call-{backward['id']}/{dx['id']}/{at}")
    assert made.locator(f"td.differs[data-array='{dx['id']}']").count() == 1
    assert made.locator("#card .differs").all_inner_texts() == ["differs", "the terms do not add up to it"]
    made.close()
