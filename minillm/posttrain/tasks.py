"""Tasks with verifiable answers for GRPO: prompts, right answers, and a reward.

A task numbers its problems, so that "the problems held out" is a list of numbers. Rewards are in [0, 1]: most of it for
the right answer, a little for an answer of the right form, so that a model that answers nonsense has a way up.
"""
from dataclasses import dataclass, field

import numpy as np

FORM = 0.1          # reward of a wrong answer of the right form


@dataclass(frozen=True)
class Addition:
    """Sums of two numbers below `limit`: "7+5=" wants "12"."""

    limit: int = 10
    every: int = 5           # one problem in `every` is held out
    wrong: float = field(default=0.0, repr=False)       # share of the records whose answer is random
    copies: int = field(default=1, repr=False)          # records of a problem

    @property
    def held_out(self) -> list[int]:
        return [i for i in range(self.limit ** 2) if self.shuffled(i) % self.every == 0]

    @property
    def training(self) -> list[int]:
        return [i for i in range(self.limit ** 2) if self.shuffled(i) % self.every]

    def shuffled(self, number: int) -> int:
        """A fixed mix-up of the numbers, so that no row or column of the table is held out as a whole."""
        return (number * 2654435761 >> 7) % 1009

    def prompt(self, number: int) -> str:
        return f"{number // self.limit}+{number % self.limit}="

    def answer(self, number: int) -> str:
        return str(number // self.limit + number % self.limit)

    def reward(self, number: int, text: str) -> float:
        if text == self.answer(number):
            return 1.0
        return FORM if text.isascii() and text.isdigit() and len(text) <= 3 else 0.0

    def records(self, seed: int = 0) -> list[dict[str, str]]:
        """prompt/completion records of the training problems; a share of the answers is wrong, as a teacher may be."""
        rng = np.random.default_rng(seed)
        found = []
        for number in self.training * self.copies:
            answer = self.answer(number)
            if rng.random() < self.wrong:
                answer = str(rng.integers(0, 2 * self.limit - 1))
            found.append({"prompt": self.prompt(number), "completion": answer})
        return found


TASKS = {"addition": Addition(), "addition-careless": Addition(wrong=0.5, copies=20),
         "addition-2-digits": Addition(limit=100, every=50)}
