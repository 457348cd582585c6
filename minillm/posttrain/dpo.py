"""Preference training: pairs of answers, and the loss of ops/dpo_loss.py on the log-probability of each as a whole.

log p(answer) is the sum over its learned tokens, and the model already gives -log p of every token as its loss. So
the chain rule has one link more than in pretraining: the gradient of an answer's log-probability, negated, is the
gradient of each of its tokens' losses. The reference's log-probabilities never change: they are computed once.

DPO only asks that the chosen answer gains on the rejected one: both may become less likely, to the gain of something
else. `nll_weight` adds the chosen answer's own loss, the mean over its tokens (Pang et al. 2024, "Iterative reasoning
preference optimization", arXiv 2404.19733).
"""
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig, check_counts, check_field
from ..data.sources.conversations import Preference
from ..models.params import Params
from ..tokenizer.roles import EndOfText
from ..train.log import COLUMNS
from ..train.loop import keep_best, update
from ..train.optim import AdamW
from .sft import SHARE, packed, split

REWARDS = ["reward_chosen", "reward_rejected", "margin", "accuracy"]        # implied: beta log(p / reference's p)
DPO_COLUMNS = [name for name in COLUMNS if name != "val_bpb"] + ["val_margin", "val_accuracy", *REWARDS]


class PreferenceData:
    """Pairs for `train`, with the reference's log-probabilities: what `dpo_step` and `validate_dpo` need."""

    def __init__(self, preferences: list, block_size: int, pairs: int, seed: int = 0, share: float = SHARE):
        """preferences: list of Preference; a pair is dropped when an answer does not fit the context window. pairs: in
        a micro-batch.

        Raises ValueError for pairs below 1, and when too few fit to train and to validate."""
        check_counts(pairs=pairs)
        whole = [p for p in preferences if all(len(example.ids) <= block_size + 1 for example in p)]
        self.dropped = len(preferences) - len(whole)
        self.preferences, self.held_out = split(whole, share, seed)
        self.pairs, self.seed = min(pairs, len(self.preferences)), seed
        self.reference: dict | None = None
        self.fingerprint = hashlib.blake2b(repr(self.preferences).encode(), digest_size=16).hexdigest()

    def refer_to(self, model: Any) -> None:
        """Compute log p of every answer under `model` as it is now, the reference; None for the reference-free loss."""
        everything = {"train": self.preferences, "held out": self.held_out}
        self.reference = model and {name: np.concatenate([logps(model, pairs[i:i + 1])[0] for i in range(len(pairs))])
                                    for name, pairs in everything.items()}

    def chosen_for(self, batch: int) -> list[int]:
        """The numbers of the pairs of a batch, counted over all steps: every pair once an epoch, in a random order."""
        count, first = len(self.preferences), batch * self.pairs
        return [int(np.random.default_rng((self.seed, i // count)).permutation(count)[i % count])
                for i in range(first, first + self.pairs)]

    def reference_of(self, part: str, numbers: list[int]) -> np.ndarray:
        """(ref_chosen, ref_rejected), each (n,)."""
        if self.reference is None:
            return np.zeros((2, len(numbers)))
        return self.reference[part].reshape(-1, 2)[numbers].T


def logps(model: Any, preferences: list[Preference], key: tuple | None = None) -> tuple[np.ndarray, tuple]:
    """log p of the answers, (2n,): chosen and rejected in turn; and what the backward needs."""
    batch = packed([example for pair in preferences for example in pair])
    losses, caches = model.losses(batch.tokens, batch.targets, -1, key, batch.lengths)
    starts = np.cumsum([0, *batch.lengths])[:-1]                 # type: ignore[misc]  # packed: it has them
    return -np.add.reduceat(losses.astype(np.float64), starts), (losses.dtype, batch.lengths, caches)


def logps_backward(dlogps: np.ndarray, model: Any, state: tuple, grads: Params) -> Params:
    """dlogps (2n,) -> adds to grads: every token of an answer has the slope -dlogps of its answer."""
    dtype, lengths, caches = state
    return model.backward(np.repeat(-dlogps, lengths).astype(dtype), caches, grads)


def preference_losses(model: Any, data: PreferenceData, part: str, numbers: list[int], beta: float,
                      label_smoothing: float, nll_weight: float = 0.0,
                      key: tuple | None = None) -> tuple[np.ndarray, tuple]:
    """losses (n,), and what the backward needs, for some pairs of data."""
    pairs = [{"train": data.preferences, "held out": data.held_out}[part][i] for i in numbers]
    answers, state = logps(model, pairs, key)
    chosen, rejected = np.ascontiguousarray(answers.reshape(-1, 2).T)
    reference = [np.ascontiguousarray(ref) for ref in data.reference_of(part, numbers)]
    losses, cache = model.ops.dpo_loss_forward(chosen, rejected, *reference, beta, label_smoothing)
    weights = nll_weight / np.array([sum(pair.chosen.learned[1:]) for pair in pairs])             # (n,)
    rewards = beta * (chosen - reference[0]), beta * (rejected - reference[1])
    return losses - weights * chosen, (state, cache, weights, rewards)


def preference_backward(dlosses: np.ndarray, model: Any, state: tuple, grads: Params) -> Params:
    """dlosses (n,) -> adds to grads."""
    forward, cache, weights, _ = state
    dchosen, drejected = model.ops.dpo_loss_backward(dlosses, cache)
    return logps_backward(np.stack([dchosen - weights * dlosses, drejected], 1).ravel(), model, forward, grads)


def reward_columns(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """What TRL logs too: mean implied rewards, their difference, and how often the chosen answer's is the larger."""
    values = chosen, rejected, chosen - rejected, chosen > rejected
    return {name: float(np.mean(value)) for name, value in zip(REWARDS, values)}


def dpo_step(beta: float = 0.1, label_smoothing: float = 0.0, nll_weight: float = 0.0) -> Callable:
    """The step for `train`: the mean over config.accumulate batches of pairs. Raises ValueError: nll_weight below 0."""
    check_field("nll_weight", nll_weight, float, lambda v: v >= 0, "at least 0")

    def step(model: Any, optimizer: AdamW, data: PreferenceData, config: TrainConfig, state: dict) -> dict:
        started, found = time.perf_counter(), {}
        for micro, grads in optimizer.micro_gradients(config.accumulate):
            numbers = data.chosen_for(state["step"] * config.accumulate + micro)
            losses, forward = preference_losses(model, data, "train", numbers, beta, label_smoothing, nll_weight,
                                                (config.seed, state["step"], micro))
            share = np.full(len(losses), 1 / (len(losses) * config.accumulate))        # batches are all of one size
            preference_backward(share, model, forward, grads)
            found[micro] = [float(losses.mean()), sum(forward[0][1]), *np.ravel(forward[-1])]
        all_found = optimizer.of_micros(found, config.accumulate)                      # (accumulate, 2 + 2 * pairs)
        loss, tokens = float(sum(all_found[:, 0])) / config.accumulate, int(all_found[:, 1].sum())
        row = update(model, optimizer, config, state, loss, tokens, started)
        rewards = all_found[:, 2:].reshape(config.accumulate, 2, -1)
        return row | reward_columns(*np.concatenate(rewards, axis=1))
    return step


def validate_dpo(beta: float = 0.1, label_smoothing: float = 0.0, nll_weight: float = 0.0) -> Callable:
    """The validation for `train`: mean loss, and how often the chosen answer's implied reward is the larger."""
    def validate(model: Any, data: PreferenceData, config: TrainConfig, state: dict, run: Path,
                 eot_token: EndOfText) -> dict:
        losses, rewards = [], []
        for i in range(len(data.held_out)):
            loss, forward = preference_losses(model, data, "held out", [i], beta, label_smoothing, nll_weight)
            losses.append(float(loss[0]))
            rewards.append(forward[-1])
        columns = reward_columns(*np.concatenate(rewards, axis=1))
        return keep_best(model, state, run, eot_token, {"val_loss": float(np.mean(losses)),
                                                        "val_margin": columns["margin"],
                                                        "val_accuracy": columns["accuracy"]})
    return validate
