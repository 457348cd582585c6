"""Requests and answers made from the grammar of stories: a small instruction set whose answers a program can judge.

A request names five of the choices behind a story: who, what kind, what was lost. The answer is the story. Whether a model
does what it is asked can then be counted (`followed`), and so can a preference: of two answers to one request, the
story that ends well is chosen, the one that ends badly is rejected (`ends_well`).
"""
import random

from .stories import STORY

ASKED = ("mood", "hero", "name", "colour", "thing")
REQUESTS = ("Tell a story about a {mood} {hero} called {name} who loses a {colour} {thing}.",
            "Write about {name}, a {mood} {hero}, and a {colour} {thing} that is lost.",
            "I want to hear of {name} the {hero}. Make it {mood}, with a {colour} {thing}.",
            "A {colour} {thing} gets lost. It belongs to a {mood} {hero} whose name is {name}. What happens?")
BAD_END = "never saw the"
GOOD_END = tuple(f" {found} the " for found in STORY.tables["found"].options({}))


def request(choices: dict[str, str], rng: random.Random) -> str:
    return rng.choice(REQUESTS).format(**{name: choices[name] for name in ASKED})


def records(count: int, seed: int) -> list[dict]:
    """`count` records with messages, and the choices they ask for under "asked"."""
    rng, found = random.Random(f"instructions {seed}"), []
    for _ in range(count):
        text, choices = STORY.draw(rng)
        found.append({"messages": [user(request(choices, rng)), assistant(text)],
                      "asked": {name: choices[name] for name in ASKED}})
    return found


def preferences(count: int, seed: int) -> list[dict]:
    """`count` records with prompt, chosen and rejected: one story twice, with a good and a bad end."""
    rng, found = random.Random(f"preferences {seed}"), []
    while len(found) < count:
        text, choices = STORY.draw(rng)
        other = with_other_end(text, choices, rng)
        good, bad = (text, other) if ends_well(text) else (other, text)
        found.append({"prompt": [user(request(choices, rng))], "chosen": [assistant(good)], "rejected": [assistant(bad)]})
    return found


def with_other_end(text: str, choices: dict[str, str], rng: random.Random) -> str:
    """The same story up to its last act, which is drawn until it ends the other way."""
    start = max(text.rfind("So " + choices["name"] + " brought"), text.rfind("But " + choices["name"] + " had no"))
    while True:
        parts: list[str] = []
        STORY._write("<ending>", dict(choices), parts, rng)
        other = text[:start] + "".join(parts)
        if ends_well(other) != ends_well(text):
            return other


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content}


def followed(text: str, asked: dict[str, str]) -> float:
    """Share of what was asked for that the answer holds, word for word."""
    words = text.replace(",", " ").replace(".", " ").split()
    return sum(value in words for value in asked.values()) / len(asked)


def ends_well(text: str) -> bool:
    """Whether the lost thing was found: a text that never comes to an end does not end well."""
    return BAD_END not in text and any(found in text for found in GOOD_END)
