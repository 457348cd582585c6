"""Instructions that a program can judge: stories, preferences, harmful requests and their harmless twins."""
import re
from itertools import chain

import pytest

from minillm.data.sources import instructions
from minillm.data.sources.stories import BOYS, GIRLS, log2_probability, stories
from minillm.evaluate import safety
from minillm.recipes import story


def test_answers_do_what_is_asked():
    found = instructions.records(40, 0)
    for record in found:
        question, answer = (message["content"] for message in record["messages"])
        assert log2_probability(answer) < 0                                  # a story of the grammar
        assert instructions.followed(answer, record["asked"]) == 1
        assert all(value in question for value in record["asked"].values())
    assert instructions.followed(found[0]["messages"][1]["content"], found[1]["asked"]) < 1
    assert instructions.records(40, 0) == found != instructions.records(40, 1)


def test_pairs_differ_in_their_end_alone():
    for pair in instructions.preferences(40, 0):
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert instructions.ends_well(chosen) and not instructions.ends_well(rejected)
        assert log2_probability(chosen) < 0 and log2_probability(rejected) < 0
        same = next(i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b)
        assert chosen[:same].endswith("\" said the " + chosen[:same].rpartition("said the ")[2]) or same > 300
    assert not instructions.ends_well("It never ends and never")


def test_twins_differ_in_a_word_and_in_what_is_right():
    words = {True: set(), False: set()}
    for twins in instructions.delicate(400, 0):
        harmful, harmless = (twin["prompt"].split() for twin in twins)
        (differing,) = [(a.strip("."), b.strip(".")) for a, b in zip(harmful, harmless, strict=True) if a != b]
        words[True].add(differing[0])
        words[False].add(differing[1])
        cruel, kind = (twin["story"] for twin in twins)
        assert not instructions.ends_well(cruel) and instructions.ends_well(kind) and log2_probability(kind) < 0
        for twin in twins:
            assert safety.REFUSAL.search(twin["refusal"]) and not safety.REFUSAL.search(twin["story"])
            assert not twin["prompt"].endswith((" his.", " her."))             # a name: "beats his" would be no English
            assert "{" not in twin["prompt"] + twin["story"] + twin["refusal"]
    assert words == dict(zip((True, False), map(set, zip(*instructions.DEEDS))))


def test_only_a_classifier_of_words_finds_the_cruel_stories():
    pytest.importorskip("profanity_check")
    cruel, kind = zip(*((a["story"], b["story"]) for a, b in instructions.delicate(15, 0)))
    assert all(map(safety.is_toxic, cruel)) and sum(map(safety.is_toxic, kind)) <= 1


def test_half_of_the_harmful_conversations_decline_and_all_of_the_pairs():
    found = instructions.conversations(400, 0)
    answers = [record["messages"][1]["content"] for record in found]
    declined = sum(bool(safety.REFUSAL.search(text)) for text in answers)
    assert len(found) == 400 and 35 <= declined <= 65                               # of the 100 harmful ones
    pairs = instructions.refusals(40, 0)
    for harmful, harmless in zip(pairs[::2], pairs[1::2], strict=True):
        assert safety.REFUSAL.search(harmful["chosen"][0]["content"])
        assert harmless["rejected"] == harmful["chosen"] and log2_probability(harmless["chosen"][0]["content"]) < 0
    assert {instructions.ends_well(pair["rejected"][0]["content"]) for pair in pairs[::2]} == {True, False}


def test_what_is_measured_on_was_never_trained_on():
    trained = {r["messages"][0]["content"] for r in instructions.conversations(story.CHATS, 0)}
    trained |= {r["prompt"][0]["content"] for r in instructions.refusals(story.PAIRS, 1)}
    for half in instructions.HALVES:
        held_out = instructions.safety_prompts(story.DELICATE, 1_000_000, half)
        assert len(held_out) == story.DELICATE and not trained & {p["prompt"] for p in held_out}
    unseen = set(chain(*chain(*instructions.UNSEEN.values())))
    assert len(unseen) == 20 and not unseen & set(" ".join(trained | set(stories(300, 0))).replace(".", "").split())


def slots(prompts):
    """Names, deeds, and each deed with the form of its scene, of some prompts."""
    names, words = set("|".join((GIRLS, BOYS)).split("|")), [re.findall(r"\w+", p["prompt"]) for p in prompts]
    deeds = set(chain(*instructions.DEEDS, *chain(*instructions.UNSEEN.values())))
    scenes = {(form, deed) for w in words for form in {"Then", "In", "meets"} & set(w[-9:])
              for deed in deeds & set(w[-2:])}
    return set().union(*(names & set(w) for w in words)), {deed for _, deed in scenes}, scenes


def test_the_halves_share_no_name_and_no_deed_in_the_same_scene():
    for unseen in (False, True):
        (names, deeds, scenes), (other_names, other_deeds, other_scenes) = (
            slots(instructions.safety_prompts(600, 5, half, unseen)) for half in instructions.HALVES)
        assert not names & other_names and not scenes & other_scenes and len(names | other_names) > 30
        assert not deeds & other_deeds if unseen else deeds == other_deeds == set(chain(*instructions.DEEDS))
    asked, others = ({r["asked"]["name"] for r in instructions.records(200, 5, half)} for half in instructions.HALVES)
    assert not asked & others
