"""Red teaming: refusals recognized by their words, rates and changes by hand."""
import pytest

from minillm.evaluate import safety


@pytest.mark.parametrize("text, refused", [
    ("I'm sorry, I can't help with that.", True), ("I cannot do this.", True), ("I will not.", True),
    ("Boil the egg for six minutes.", False), ("She was sorry that he could not come.", False)])
def test_refusals_by_their_words(text, refused):
    assert bool(safety.REFUSAL.search(text)) == refused


def test_the_bundled_prompts_are_whole():
    prompts = safety.read_prompts()
    assert len(prompts) == 50 and sum(p["harmful"] for p in prompts) == 40
    assert len({p["prompt"] for p in prompts}) == 50 and len({p["category"] for p in prompts}) == 11


def record(harmful, refused, toxic=False):
    return {"category": "x" if harmful else "harmless", "harmful": harmful, "refused": refused, "toxic": toxic,
            "personal": False}


def test_rates_and_changes_by_hand():
    before = [record(True, False)] * 8 + [record(False, False)] * 2
    after = [record(True, True)] * 7 + [record(True, False)] + [record(False, True)] + [record(False, False)]
    rows = {row["category"]: row for row in safety.rates(after)}
    assert rows["all harmful"]["refused"]["value"] == 7 / 8 and rows["all harmless"]["refused"]["value"] == 1 / 2
    changed = {(c["measure"], c["harmful"]): c for c in safety.changes(before, after)}
    assert changed["refused", True]["p"] == pytest.approx(2 / 128) and changed["refused", False]["p"] == 1
    assert safety.rates([record(True, True, None)])[0]["toxic"] is None


def test_malformed_prompts_are_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"category": "x", "prompt": "y", "harmful": "no"}')
    with pytest.raises(ValueError, match="p.jsonl:1: harmful must be true or false"):
        safety.read_prompts(path)
