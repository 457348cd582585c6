"""Stories of a grammar: seeded, with an entropy and a probability that are exact."""
import itertools
import math
import os
import random
import statistics

import pytest

from minillm.data.sources import stories


def test_stories_are_seeded_and_extend():
    assert stories.stories(30, seed=1)[:10] == stories.stories(10, seed=1) != stories.stories(10, seed=2)
    assert stories.stories(0, seed=1) == []
    with pytest.raises(ValueError, match="count"):
        stories.stories(-1, seed=0)


def test_entropy_and_length_agree_with_a_sample():
    sample = stories.stories(4000, seed=0)
    for exact, values in [(stories.entropy_bits(), [-stories.log2_probability(text) for text in sample]),
                          (stories.expected_bytes(), [len(text.encode()) for text in sample])]:
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.mean(values) - exact) < 4 * error
        assert 0 < error < 0.01 * exact
    assert 60 < stories.entropy_bits() < 110 and len(set(sample)) == len(sample)


def test_no_option_begins_another():
    """So every choice can be told from the text as soon as it is read: distinct choices, distinct texts."""
    for name, drawn in stories.STORY.tables.items():
        for options in drawn.choices.values():
            for one, other in itertools.combinations(options, 2):
                common = len(os.path.commonprefix([one, other]))
                first = one[common:common + 1], other[common:common + 1]
                assert all(first) and not set(first) & set("<{"), (name, one, other)
                assert not set(one[:common]) & set("<{"), (name, one, other)


def test_probability_is_that_of_the_choices_made():
    """Record each draw's probability while generating; reading the text must give their product."""
    class Recorder(random.Random):
        def choices(self, population, weights):
            chosen = super().choices(population, weights)
            self.bits += math.log2(weights[population.index(chosen[0])] / sum(weights))
            return chosen
    rng = Recorder(5)
    for _ in range(200):
        rng.bits = 0.0
        text = stories.STORY.generate(rng)
        assert stories.log2_probability(text) == pytest.approx(rng.bits, abs=1e-9)


def test_agreement_over_a_distance_is_checked():
    text = stories.stories(1, seed=3)[0]
    thing = text.split(" from ")[0].split()[-1]
    other = "ball" if thing != "ball" else "key"
    head, tail = text[:-60], text[-60:]
    assert thing in tail
    for wrong in (head + tail.replace(thing, other), text + " ", text[:-1], ""):
        with pytest.raises(ValueError, match="not a story"):
            stories.log2_probability(wrong)


SMALL = stories.Grammar("<who> has <gift>. <end>", {
    "who": stories.table("Ann|Bob|Cyd"),
    "she": stories.table_given("who", {"Ann": "she", "Bob": "he", "Cyd": "she|they"}),
    "gift": stories.table("a <colour> hat|ten <coin>"),
    "colour": stories.table_given("who", {"Ann": "red|blue", "Bob": "green", "Cyd": "red|green|white"}),
    "coin": stories.table("pennies|marks"),
    "end": stories.table("So <she> sings|{who} has nothing")})


def every_text(grammar, template, state):
    """All (text, probability, state) that `template` can write: the grammar once more, by brute force."""
    results = [("", 1.0, state)]
    for kind, value in grammar.tokens(template):
        grown = []
        for text, p, state in results:
            if kind != "draw":
                grown.append((text + (value if kind == "text" else state[value]), p, state))
                continue
            options = grammar.tables[value].options(state)
            for option, weight in options.items():
                for more, q, inner in every_text(grammar, option, {**state, value: option}):
                    grown.append((text + more, p * weight / sum(options.values()) * q, inner))
        results = grown
    return results


def test_a_small_grammar_exhaustively():
    texts = [(text, p) for text, p, _ in every_text(SMALL, SMALL.start, {})]
    assert len({text for text, _ in texts}) == len(texts) > 20
    assert sum(p for _, p in texts) == pytest.approx(1, abs=1e-12)
    for text, p in texts:
        assert SMALL.log2_probability(text) == pytest.approx(math.log2(p), abs=1e-12)
    bits, size = SMALL.expectations
    assert bits == pytest.approx(-sum(p * math.log2(p) for _, p in texts), abs=1e-12)
    assert size == pytest.approx(sum(p * len(text) for text, p in texts), abs=1e-12)
