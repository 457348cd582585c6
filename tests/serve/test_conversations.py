"""The chat page's conversations: kept over a reload, several side by side, said again in other words."""
import json
import shutil
import subprocess

import pytest
from chatting import ask, browser, fill, page, said, served, talker, wait_for, wait_for_answers  # noqa: F401  (fixtures)

from minillm.serve.app import HERE


def node(program):
    """What a program prints as JSON; it has conversations.js as `c` and a storage in memory as `storage`."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    start = f"""const c = require({json.dumps(str(HERE / "conversations.js"))});
        const storage = c.storageOf({{get localStorage() {{ throw new Error("forbidden"); }}}}, "localStorage");
        const kept = new c.Conversations(storage), print = value => console.log(JSON.stringify(value));"""
    return json.loads(subprocess.run(["node", "-e", start + program], capture_output=True, text=True,
                                     check=True).stdout)


def test_conversations_are_kept_side_by_side():
    assert node("""const [a, b] = [c.newConversation(), c.newConversation()];
        a.turns = [{role: "user", content: " one\\n two "}]; a.changed = 1; b.changed = 2;
        kept.save(a); kept.save(b); a.title = "mine"; const first = kept.list().map(c.titleOf);
        kept.save(a); const second = kept.list().map(c.titleOf); kept.remove(b);
        print([first, second, kept.list().length, a.id !== b.id]);""") == [
            ["New conversation", "one two"], ["New conversation", "mine"], 1, True]


def test_what_others_left_in_the_storage_is_passed_over():
    assert node("""const texts = ["", "{", "null", '{"turns": 3}', '{"id": "x", "title": "", "skipped": 0, ' +
            '"changed": 1, "turns": [{"role": "system", "content": "x"}]}'];
        for (const [i, text] of texts.entries()) storage.setItem(c.PREFIX + i, text);
        storage.setItem("other", "{}"); print(kept.list());""") == []


def test_a_full_storage_is_told():
    assert node("""storage.setItem = () => { throw new Error("QuotaExceededError"); };
        print(kept.save(c.newConversation()));""") is False


def test_a_conversation_outlives_a_reload(page):
    """The answer after it is the one that would have come without; deleting forgets it for good."""
    fill(page, temperature=0, max_tokens=20)
    ask(page, "the quick fox", 1)
    ask(page, "<b>and</b> the dog?", 2)
    words = said(page)
    ask(page, "the fox", 3)
    third = said(page)[-1]
    page.locator(".again").last.click()
    wait_for_answers(page, 3)
    assert said(page)[-1] == third
    page.reload()
    assert said(page) == [*words, "the fox", third] and page.locator(".again:visible").count() == 1
    fill(page, temperature=0, max_tokens=20)
    page.locator(".again:visible").click()
    wait_for_answers(page, 3)
    assert said(page) == [*words, "the fox", third] and page.locator(".error").count() == 0
    page.locator("#list .delete").click()
    assert page.locator(".turn").count() == 6                               # asked, not done
    page.locator("#list .sure").click()
    assert page.locator(".turn").count() == page.locator("#list li").count() == 0
    page.reload()
    assert page.locator(".turn").count() == 0


def test_several_conversations(page):
    """A new one beside the old, names, switching, another tab; each has its own turns, and the model sees only them."""
    fill(page, temperature=0, max_tokens=10)
    ask(page, "the quick fox", 1)
    fox = said(page)
    page.locator("#new").click()
    assert said(page) == []
    ask(page, "the lazy dog", 1)
    dog = said(page)
    assert page.locator("#list .open").all_inner_texts() == ["the lazy dog", "the quick fox"]
    page.locator("#list .current .rename").click()
    page.locator("#list input").fill("<i>Dogs</i>")
    page.locator("#list input").press("Enter")
    page.locator("#list .open").last.click()
    assert said(page) == fox and page.locator("#list .current .open").inner_text() == "the quick fox"
    page.locator(".again").last.click()
    wait_for_answers(page, 1)
    assert said(page) == fox
    other = page.context.new_page()                                         # the last changed is open there
    other.goto(page.url)
    assert said(other) == fox and other.locator("#list li").count() == 2
    fill(other, temperature=0, max_tokens=10)
    ask(other, "and the hen", 2)
    wait_for(page, "document.querySelectorAll('.turn').length === 4")         # and is here, too
    page.locator("#list .open").get_by_text("Dogs").click()
    assert said(page) == dog
    page.reload()
    assert said(page) == dog and "<i>Dogs</i>" in page.locator("#list .open").all_inner_texts()


def test_what_was_said_is_changed(page):
    """The turns after it go, and the answer is that of a conversation which began so; cancelling changes nothing."""
    fill(page, temperature=0, max_tokens=20)
    ask(page, "the quick fox", 1)
    ask(page, "and the dog?", 2)
    words = said(page)
    page.locator(".edit").first.click()
    page.locator(".turn textarea").fill("the lazy dog")
    page.locator(".cancel").click()
    assert said(page) == words
    page.locator(".edit").first.click()
    assert page.locator(".turn textarea").input_value() == "the quick fox"
    page.locator(".turn textarea").fill("the lazy dog")
    page.locator(".save").click()
    wait_for_answers(page, 1)
    changed = said(page)
    page.reload()
    assert said(page) == changed
    page.locator("#new").click()
    fill(page, temperature=0, max_tokens=20)
    ask(page, "the lazy dog", 1)
    assert said(page) == changed and changed[0] == "the lazy dog" and len(changed) == 2


def test_a_change_that_cannot_be_answered_changes_nothing(page):
    fill(page, temperature=0, max_tokens=10)
    ask(page, "the quick fox", 1)
    words = said(page)
    page.locator(".edit").first.click()
    page.locator(".turn textarea").fill("\u2603" * 3000)
    page.locator(".save").click()
    wait_for(page, "document.querySelectorAll('.error').length === 1 && !document.querySelector('.running')")
    assert said(page) == [*words, page.locator(".error").inner_text()] or said(page)[:2] == words
    assert page.locator("#prompt").input_value() == "\u2603" * 3000
    page.reload()
    assert said(page) == words


def test_an_answer_is_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fill(page, temperature=0, max_tokens=20)
    ask(page, "the quick fox", 1)
    page.locator(".assistant .copy").click()
    wait_for(page, "document.querySelector('.assistant .copy').textContent === 'copied'")
    shown = page.locator(".assistant span").evaluate_all("spans => spans.map(s => s.textContent).join('')")
    assert page.evaluate("navigator.clipboard.readText()") == shown
