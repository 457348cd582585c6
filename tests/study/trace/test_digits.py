"""From the HTML file back to the model: every number that the page holds is the package's own, run once more."""
import json
import re

import numpy as np
import pytest
from pages import browser  # noqa: F401  (a fixture)
from tracing import PROMPT, model, recorded, training

from minillm import AdamW
from minillm.study.trace.page import page
from minillm.train.optim import clip_scale, global_norm

TOKENS, TARGETS = np.array([PROMPT[:-1]]), np.array([PROMPT[1:]])


@pytest.fixture(scope="module")
def html():
    return page(recorded())


def truth():
    """{parameter: {what: array}} of an independent step."""
    other, state = model(), training(model())
    loss, grads = other.loss_and_grads(TOKENS, TARGETS)
    optimizer = AdamW(other.params, eps=state.config.eps, weight_decay=0.2, ops=other.ops)
    optimizer.m.flat[:], optimizer.v.flat[:], optimizer.steps = state.m.flat, state.v.flat, 3
    optimizer.step(grads, 1e-2, clip_scale(global_norm(grads), 0.5))
    return loss, {name: {"value": model().params[name], "gradient": grads[name], "after": other.params[name],
                         "m_after": optimizer.m[name], "v_after": optimizer.v[name]} for name in grads}


def same(texts, array):
    """The very digits that NumPy prints, and the very bits."""
    numbers = [np.float32(text) for text in texts]
    assert np.array_equal(np.array(numbers, np.float32), array.ravel())
    assert [float(text) for text in texts] == [float(str(x)) for x in array.ravel()]


def test_numbers_parsed_out_of_the_file(html):
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', html, re.S)[1]
    found = json.loads(data, parse_float=str)               # digits as they stand there
    loss, parameters = truth()
    assert float(found["training"]["loss_before"]) == loss
    assert len(found["parameters"]) == len(parameters)
    for row in found["parameters"]:
        wanted = parameters[row["name"]]
        for what in ("value", "gradient"):
            same(found["arrays"][row[what]]["values"], wanted[what])
        for what in ("after", "m_after", "v_after"):
            same(row[what], wanted[what])


def test_numbers_read_off_the_screen(html, tmp_path, request):
    """What Chromium shows in the table of a gradient, cell by cell."""
    chromium = request.getfixturevalue("browser")
    (tmp_path / "trace.html").write_text(html, encoding="utf-8")
    _, parameters = truth()
    back = next(call for call in recorded()["calls"] if call["function"] == "residual_layernorm_backward")
    assert back["where"] == "ln_f"
    tab = chromium.new_page()
    tab.goto((tmp_path / "trace.html").as_uri() + f"#call-{back['id']}")
    tab.get_by_label("Numbers").select_option("all")
    tab.locator("#panel details").evaluate_all("folds => folds.forEach(fold => fold.open = true)")
    for name in ("ln_f.weight", "ln_f.bias"):
        row = next(row for row in recorded()["parameters"] if row["name"] == name)
        for what in ("value", "gradient"):
            cells = tab.locator(f"#panel td[data-array='{row[what]}']")
            cells.first.wait_for()
            same(cells.all_inner_texts(), parameters[name][what])
    tab.close()


def test_the_page_fits(html):
    assert len(html.encode()) < 2e6
