"""What tests of the chat page share: a server, a page of it in a browser, and the hands of a user."""
import pytest
from pages import browser  # noqa: F401  (a fixture)
from small_models import talker  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def served(talker):  # noqa: F811
    """`minillm serve` with prompt lookup, so that the page has an acceptance to show."""
    for package in ("starlette", "uvicorn", "httpx"):
        pytest.importorskip(package)
    from serving import command
    with command(talker, "--lookup") as (_, url):
        yield url


@pytest.fixture
def page(served, browser):  # noqa: F811
    """The page, open in a browser of its own; a test fails if the console complains of anything but an answer of the
    API's, or if the page asks another server for anything."""
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page, complaints = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and "status of 400" not in message.text
            and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    context.on("request", lambda request: request.url.startswith((served, "data:")) or complaints.append(request.url))
    page.goto(served)
    wait_for(page, "document.getElementById('model').textContent.includes('talker')")
    yield page
    context.close()
    assert not complaints


def wait_for(page, expression):
    """Playwright's own wait is an eval in the page, which the content security policy forbids."""
    for _ in range(1200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def fill(page, **values):
    for name, value in values.items():
        page.locator(f"[name={name}]").fill(str(value))


def wait_for_answers(page, count):
    wait_for(page, f"document.querySelectorAll('.assistant small').length === {count}"
                   " && !document.querySelector('.running')")


def ask(page, text, answers):
    page.locator("#prompt").fill(text)
    page.locator("#send").click()
    wait_for_answers(page, answers)


def said(page):
    """The words of all turns, answers without their tokens."""
    return page.locator(".words").all_inner_texts()
