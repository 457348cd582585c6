"""The page of a trace as a file: it needs nothing else, no text of the data is markup, and every number is in it."""
import hashlib
import json
import re
from base64 import b64decode

import pytest
from pages import Structure
from traced import EVIL, recorded  # noqa: F401  (recorded is a fixture)

from minillm.study.trace.page import SCRIPTS, page, read


@pytest.fixture(scope="module")
def html(recorded):
    return page(recorded)


def data_in(html):
    """What the page's scripts read."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_it_needs_nothing_else(html):
    """No address but those inside of the page, and a policy that would refuse any other."""
    assert html.startswith("<!doctype html>") and '<html lang="en">' in html and '<meta charset="utf-8">' in html
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    found = Structure(html)
    assert not {"link", "img", "iframe", "base", "object"} & found.tags and "src" not in found.attributes
    assert not any(name.startswith("on") for name in found.attributes) and set(found.anchors) <= set(found.ids)
    frame = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\"]+", frame)) == {"http://www.w3.org/2000/svg"}       # a name, not an address
    assert "default-src 'none'" in html and "@import" not in html and "url(" not in re.sub(r"url\(#tip", "", frame)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\(",
                         "".join(map(read, SCRIPTS)))


def test_the_policy_names_the_script_of_the_page(html):
    """A browser runs no script of another digest."""
    (wanted,) = re.findall(r"script-src 'sha256-([^']+)'", html)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert [hashlib.sha256(script.encode()).digest() for script in scripts] == [b64decode(wanted)]


def test_no_text_of_the_data_is_markup(html, recorded):
    """A token that ends a script element is shown, in the head and in the data, and is nothing else."""
    assert recorded["tokens"][0]["text"] == EVIL and EVIL not in html
    assert data_in(html)["tokens"] == recorded["tokens"] and html.count("</script>") == 2
    assert "&lt;/script&gt;" in html
    evil = page(recorded | {"model": recorded["model"] | {"directory": EVIL + "\udcff"}})
    evil.encode()
    assert EVIL not in evil and evil.count("</script>") == 2 and f"A step of {EVIL}" not in evil


def test_every_number_of_the_recording_is_in_it(html, recorded):
    found = data_in(html)
    assert found.keys() == recorded.keys()
    assert all(found[part] == json.loads(json.dumps(recorded[part])) for part in recorded if part != "ops")
    for name, op in recorded["ops"].items():
        assert found["ops"][name] == {key: value for key, value in op.items() if key != "formulas"}
        template = re.search(rf'<template data-formulas="{name}">(.*?)</template>', html, re.DOTALL)[1]
        assert template.count("<math") == len(op["formulas"])
    assert sum(len(op["formulas"]) for op in recorded["ops"].values()) > 20


def test_what_json_cannot_say_is_refused(recorded):
    broken = recorded | {"training": recorded["training"] | {"norm": float("nan")}}
    with pytest.raises(ValueError, match="recorded must hold finite numbers"):
        page(broken)
