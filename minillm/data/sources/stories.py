"""Small stories from a seeded grammar whose entropy is known exactly: a lower bound of the loss of any model.

A language model's loss cannot fall below the entropy of its text, and for real text nobody knows that number. Here
it is computed. A story is a chain of choices c1, c2, ... from weighted tables, and by the chain rule (Shannon 1948,
section 6)

    H(story) = sum over the choices of E[ H(c_i | what was chosen before) ]

which is also the entropy of the *text* because distinct choices give distinct texts: in every table no option is the
beginning of another, so a reader knows each choice as soon as he has read it, and `log2_probability` does just
that. The stories need long-range dependencies: hero, pronoun, friend, price and the thing that is lost are chosen once
(some of them with a table that depends on an earlier choice) and named again to the end, at zero bits: a model that
does not attend to its context pays for them a second time.

The grammar's notation: `<table>` draws an option and writes it; an option may hold such marks in turn. `{table}`
writes once more what was drawn. Of n options the k-th has weight n + 1 - k: the commonest stands first.
"""
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from math import log2

from ...config import check_counts

State = tuple[tuple[str, str], ...]   # sorted (table, option drawn) pairs
Flow = dict[str, float]               # {MASS: probability of a state, table: that * mean bytes of the table's option}
MASS = ""


@dataclass(frozen=True)
class Table:
    """Options and integer weights; with `given`, one set of them for each option of that earlier table."""
    choices: dict[str | None, dict[str, int]]
    given: str | None = None

    def options(self, state: dict[str, str]) -> dict[str, int]:
        return self.choices[state[self.given] if self.given else None]


def ranked(options: str) -> dict[str, int]:
    """Options split at "|" with weights n, n-1, ..., 1."""
    names = options.split("|")
    return {name: len(names) - rank for rank, name in enumerate(names)}


def table(options: str) -> Table:
    return Table({None: ranked(options)})


def table_given(parent: str, choices: dict[str, str]) -> Table:
    return Table({key: ranked(options) for key, options in choices.items()}, parent)


class Grammar:
    """A probabilistic grammar, tables by name and a start text, that samples and parses, with its exact entropy."""

    def __init__(self, start: str, tables: dict[str, Table]):
        self.start, self.tables = start, tables
        self.parents = {drawn.given for drawn in tables.values()}
        self.tokens = cache(self._tokens)

    def generate(self, rng: random.Random) -> str:
        """Sample one text with `rng`."""
        return self.draw(rng)[0]

    def draw(self, rng: random.Random) -> tuple[str, dict[str, str]]:
        """Sample one text; returns it and what was drawn for it, {table: option}."""
        parts: list[str] = []
        state: dict[str, str] = {}
        self._write(self.start, state, parts, rng)
        return "".join(parts), state

    def log2_probability(self, text: str) -> float:
        """log2 of the probability of drawing `text`; ValueError when the grammar cannot have written it."""
        state: dict[str, str] = {}
        read = self._read(self.start, text, 0, state)
        if read is None or read[0] != len(text):
            raise ValueError(f"text is not a story of this grammar: {text[:80]!r}")
        return read[1]

    @cached_property
    def expectations(self) -> tuple[float, float]:
        """(entropy in bits, mean length in UTF-8 bytes) of one text, exact but for floating-point rounding."""
        totals = {"bits": 0.0, "bytes": 0.0}
        self._expect(self.start, {(): {MASS: 1.0}}, totals)
        return totals["bits"], totals["bytes"]

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        """[("text", "There was a "), ("draw", "hero"), ("again", "name"), ...]"""
        tokens = []
        for literal, draw, again in re.findall(r"([^<{]+)|<(\w+)>|\{(\w+)\}", text):
            tokens.append(("text", literal) if literal else ("draw", draw) if draw else ("again", again))
        return tokens

    def _write(self, text: str, state: dict[str, str], parts: list[str], rng: random.Random) -> None:
        for kind, value in self.tokens(text):
            if kind == "draw":
                options = self.tables[value].options(state)
                option, = rng.choices(list(options), list(options.values()))
                state[value] = option
                self._write(option, state, parts, rng)
            else:
                parts.append(value if kind == "text" else state[value])

    def _read(self, template: str, text: str, at: int, state: dict[str, str]) -> tuple[int, float] | None:
        """Match `template` at text[at:]: (position behind it, log2 of its choices' probability), or None."""
        bits = 0.0
        for kind, value in self.tokens(template):
            if kind == "draw":
                read = self._read_option(value, text, at, state)
                if read is None:
                    return None
                at, bits = read[0], bits + read[1]
            else:
                expected = value if kind == "text" else state[value]
                if not text.startswith(expected, at):
                    return None
                at += len(expected)
        return at, bits

    def _read_option(self, name: str, text: str, at: int, state: dict[str, str]) -> tuple[int, float] | None:
        """The option of table `name` that stands at text[at:]; no option begins another, so the first is the only."""
        options = self.tables[name].options(state)
        for option, weight in options.items():
            attempt = dict(state)
            read = self._read(option, text, at, attempt)
            if read is not None:
                state.update(attempt)
                state[name] = option
                return read[0], read[1] + log2(weight / sum(options.values()))
        return None

    def _expect(self, text: str, flows: dict[State, Flow], totals: dict[str, float]) -> dict[State, Flow]:
        """Push a distribution through `text` and add its bits and bytes to `totals`.

        The distribution is over the options that a later table depends on, a few dozen states. Of everything else
        that may be repeated only the mean length matters (expectations add up), so it rides along in each state's
        flow.
        """
        for kind, value in self.tokens(text):
            if kind == "draw":
                flows = self._expect_draw(value, flows, totals)
            elif kind == "text":
                totals["bytes"] += len(value.encode()) * sum(flow[MASS] for flow in flows.values())
            else:
                totals["bytes"] += sum(flow[value] for flow in flows.values())
        return flows

    def _expect_draw(self, name: str, flows: dict[State, Flow], totals: dict[str, float]) -> dict[State, Flow]:
        by_option: dict[str, dict[State, Flow]] = defaultdict(dict)
        for state, flow in flows.items():
            options = self.tables[name].options(dict(state))
            for option, weight in options.items():
                p = weight / sum(options.values())
                totals["bits"] -= flow[MASS] * p * log2(p)
                drawn = {key: amount * p for key, amount in flow.items()}
                by_option[option][state] = drawn | {name: drawn[MASS] * len(option.encode())}
        merged: dict[State, Flow] = defaultdict(lambda: defaultdict(float))
        for option, branch in by_option.items():
            for state, flow in self._expect(option, branch, totals).items():
                new_state = tuple(sorted({**dict(state), name: option}.items())) if name in self.parents else state
                for key, amount in flow.items():
                    merged[new_state][key] += amount
        return merged


GIRLS = "Anna|Mira|Lily|Rosa|Tilda|Nora|Clara|Wanda|Ida|Greta|Jenny|Hilda|Sophie|Pearl|Bess|Edith"
BOYS = "Tom|Felix|Oscar|Ben|Hugo|Pip|Jasper|Leo|Walter|Karl|Simon|Dan|Emil|Rufus|Noah|Victor"
SHE_HEROES = ("girl", "hen", "duck", "mouse", "goose", "kitten")
HE_HEROES = ("boy", "bear", "rabbit", "frog", "piglet", "lamb")


def by_gender(she: str, he: str) -> Table:
    """A table that follows the hero: his or her pronouns and names."""
    return table_given("hero", {**dict.fromkeys(SHE_HEROES, she), **dict.fromkeys(HE_HEROES, he)})


STORY = Grammar(
    "<opening> a <mood> <hero> called <name> lived <home>. <She> had a <colour> <thing> from <her> <giver>. "
    "One <weather> <time> <she> went to the <place> to <errand>, and there the {thing} <lost>. <search> "
    "Then came a <nature> <friend>. \"<question>\" asked the {friend}. \"<answer>,\" said {name}. "
    "\"I will help you for <number> <food>,\" said the {friend}. <ending>",
    {
        "opening": table("Once upon a time|Long ago|One year|In the old days|Not far from here"),
        "mood": table("little|merry|shy|brave|clever|gentle|proud|sleepy|lonely|hungry|quiet|young|tidy|bold"),
        "hero": table("girl|boy|hen|bear|duck|rabbit|mouse|frog|goose|piglet|kitten|lamb"),
        "name": by_gender(GIRLS, BOYS),
        "home": table("by the sea|in a mill|under a bridge|on a green hill|near a dark wood|beside a river|"
                      "behind the church|at the end of the lane|over a bakery|with an old aunt|far up north|"
                      "among the reeds|down in the valley|opposite the school"),
        "She": by_gender("She", "He"), "she": by_gender("she", "he"), "her": by_gender("her", "his"),
        "colour": table("red|blue|golden|silver|yellow|green|black|white|brown|pink|purple|round"),
        "thing": table("ball|key|button|ring|bell|coin|whistle|ribbon|feather|thimble|marble|spoon|shell|locket|"
                       "comb|pencil|drum|glove|cap|penny"),
        "giver": table("mother|father|uncle|sister|godmother|teacher|neighbour|cousin|brother|aunt"),
        "weather": table("sunny|rainy|windy|cold|foggy|warm|snowy|bright|hot|stormy"),
        "time": table("morning|day|evening|afternoon"),
        "place": table("market|forest|lake|garden|meadow|harbour|well|castle"),
        "errand": table_given("place", {
            "market": "buy bread|sell eggs|see the clowns|hear the band",
            "forest": "pick berries|gather wood|look for nuts|hear the owls",
            "lake": "swim|catch a fish|sail a boat|feed the swans",
            "garden": "plant beans|water the roses|dig for worms|pick plums",
            "meadow": "fly a kite|pick flowers|chase butterflies|rest in the grass",
            "harbour": "watch the ships|buy a fish|greet the sailors|mend a net",
            "well": "fetch water|make a wish|wash the pots|meet the maids",
            "castle": "see the king|bring a letter|hear a harp|count the towers"}),
        "lost": table("was lost|rolled away|fell into the grass|vanished|slipped into a hole|sank in the mud"),
        "search": table("There {name} looked <spot> and <other_spot>, but could not find it.|"
                        "For <hours> hours {name} called and called.|"
                        "Poor {name} sat on a <seat> and cried."),
        "spot": table("under every stone|up in the trees|along the path|in the ditch|behind the fence"),
        "other_spot": table("by the water|among the leaves|inside a barrel|round the old barn"),
        "hours": table("two|three|five|seven"),
        "seat": table("stone|log|gate|bench|basket|wall"),
        "nature": table("kind|wise|lazy|tiny|grumpy|polite|funny|muddy|greedy|fat|thin|cheeky|noble|spotted"),
        "friend": table("fox|owl|cat|goat|crow|hedgehog|snail|toad|badger|squirrel|donkey|pony|raven|mole|wolf|turtle"),
        "question": table("Why are you sad?|What is wrong?|Can I help?|Have you lost something?"),
        "answer": table("I have lost my {thing}|My {colour} {thing} is gone|Nobody can find my {thing}"),
        "number": table("three|two|four|ten|six|nine"),
        "food": table("apples|cakes|nuts|pears|carrots|plums|eggs|beans|figs|radishes|onions|turnips|herrings|walnuts"),
        "ending": table("So {name} brought {number} {food}, and the {friend} <found> the {colour} {thing}. <last>|"
                        "But {name} had no {food}, so the {friend} only laughed, and <she> never saw the {thing} "
                        "again."),
        "found": table("soon found|dug up|came back with|sniffed out|brought"),
        "last": table("Then {name} <joy> and kept the {thing} <safe> ever after.|"
                      "That night {name} and the {friend} <party> until dawn."),
        "joy": table("laughed|danced|sang|hugged the {friend}"),
        "safe": table("in a box|on a string|round <her> neck|under <her> pillow"),
        "party": table("danced|feasted|sang songs|told tales"),
    })


def stories(count: int, seed: int) -> list[str]:
    """`count` stories; the first n of a longer list with the same seed are the shorter list."""
    check_counts(0, count=count)
    rng = random.Random(seed)
    return [STORY.generate(rng) for _ in range(count)]


def entropy_bits() -> float:
    """Exact entropy of one story in bits."""
    return STORY.expectations[0]


def expected_bytes() -> float:
    """Exact mean length of one story in UTF-8 bytes; entropy_bits() over it is the floor in bits per byte."""
    return STORY.expectations[1]


log2_probability = STORY.log2_probability        # summed over a validation split it is minus the floor in bits
