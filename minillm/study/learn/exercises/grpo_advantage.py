"""GRPO's advantage: better than its siblings.

To learn from rewards, sample a group of G answers to each of P prompts, and score them: rewards (P, G). Whether 0.7 is
good depends on the prompt; earlier methods trained a second network to tell. Here the group tells: the advantage of an
answer is its reward minus the mean of its group, over the group's deviation,

    A = (R - mean of the group) / (std of the group + small),      small = 1e-4

std is the sample deviation, over G - 1, since the mean is of the same few numbers. A group whose rewards are all equal
teaches nothing: its advantages are 0, which small sees to.

Write advantages_of(rewards): (P, G) float64 -> (P, G), a new array.

Source: Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300, section 4.1.2; std and small as in Hugging Face's TRL.
"""
import numpy as np

from ....posttrain import grpo
from ..exercise import Exercise
from ..rules import by_cases


def advantages_of(rewards):
    """rewards (P, G) -> advantages (P, G): of each answer, within the group of its prompt."""
    mean = rewards.mean(axis=1, keepdims=True)
    std = rewards.std(axis=1, ddof=1, keepdims=True)
    return (rewards - mean) / (std + 1e-4)


def _cases(yours):
    """One group, several, equal rewards."""
    def case(rule, rewards):
        rewards = np.array(rewards, np.float64)
        return rule, yours.advantages_of(rewards.copy()), grpo.advantages_of(rewards)

    got = yours.advantages_of(np.array([[0.0, 1.0, 1.0, 0.0], [10.0, 11.0, 13.0, 11.0]]))
    yield "advantages_of must return an array of the shape of rewards", np.shape(got) == (2, 4)
    yield ("the advantages of a group, which is a row, must sum to 0: take off each group's own mean",
           np.abs(got.sum(axis=1)).max() < 1e-9)
    yield "above the mean is positive, below it negative", got[0, 0] < 0 < got[0, 1]
    yield case("the deviation is over G - 1 (ddof=1), and 1e-4 is added to it", [[0, 1, 1, 0]])
    yield case("divide by the deviation, the root of the variance: rewards 100 times as large give nearly the same",
               [[0, 100, 100, 0]])
    yield case("the deviation is of each group by itself: not of all answers together",
               [[0, 1, 1, 0], [10, 11, 13, 11]])
    yield case("small must be added to the deviation itself, not to its square", [[0.5, 0.5, 0.501, 0.5]])
    yield case("a group of equal rewards teaches nothing: zeros, not NaN", [[1, 1, 1], [0, 1, 1]])
    yield case("two answers are a group, too", [[3, -1]])
    given = np.array([[0.0, 1.0]])
    yours.advantages_of(given)
    yield "rewards must be left as they are", given, np.array([[0.0, 1.0]])


EXERCISE = Exercise(
    __file__, solve=("advantages_of",), needs=("dpo",), checks=by_cases(_cases),
    hints=("A group is a row: mean along axis 1, with keepdims=True so that it can be taken off each of the row.",
           "np.std divides by G unless ddof=1 says G - 1.",
           "Divide by (std + 1e-4): with equal rewards that is 0 / 1e-4 = 0."))
