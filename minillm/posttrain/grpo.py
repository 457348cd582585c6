"""Learning from rewards: sample a group of answers to a prompt, score them, and make the better ones likelier.

    for each prompt:  G answers from the model itself;  rewards R;  A = (R - mean(R)) / (std(R) + small)
    loss = mean over the answers' tokens of ops/grpo_loss.py

std is the sample deviation, over G - 1, and small is 1e-4, as in TRL; the paper says neither (huggingface/trl, July
2026: trl/trainer/grpo_trainer.py, and `nanstd` with Bessel's correction in trl/trainer/utils.py).

The group replaces the value network of PPO: an answer is good if it is better than its siblings (Shao et al. 2024,
arXiv 2402.03300). A reward here is a function that checks (posttrain/tasks.py): no model judges. A group whose rewards
are all alike teaches nothing; its advantages are zero.
"""
import hashlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig, check_counts
from ..generation.sampling import Sampling, distribution, draw
from ..models.gpt2 import GPT
from ..models.packing import Batch
from ..models.params import Params
from ..tokenizer.chat_template import answer_end, end_tokens
from ..tokenizer.roles import EndOfText, opened
from ..train.log import COLUMNS
from ..train.loop import keep_best, update
from ..train.optim import AdamW
from ..train.parallel import World

GRPO_COLUMNS = [name for name in COLUMNS if name != "val_bpb"] + ["reward", "val_reward", "kl"]
SMALL = 1e-4           # added to the deviation: no division by zero


class RewardData:
    """Prompts with a reward for `train`: what `grpo_step` and `validate_reward` need."""

    def __init__(self, task: Any, tokenizer: Any, prompts: int, group: int, max_new_tokens: int, seed: int = 0):
        """task: an object with prompt(number) -> str, reward(number, text) -> float and held_out, a list of numbers
        that prompt() must not be trained on (see tasks.py). prompts, group: prompts in a step, answers to each.

        Raises ValueError for prompts or tokens below 1, or a group below 2: an answer alone is not better or worse."""
        check_counts(prompts=prompts, max_new_tokens=max_new_tokens)
        check_counts(2, group=group)
        self.task, self.tokenizer, self.seed = task, tokenizer, seed
        self.prompts, self.group, self.max_new_tokens = prompts, group, max_new_tokens
        self.stop, self.ends = answer_end(tokenizer), end_tokens(tokenizer)
        self.fingerprint = hashlib.blake2b(repr((task, prompts, group)).encode(), digest_size=16).hexdigest()

    def numbers(self, step: int) -> list[int]:
        """The prompts of a step, from those not held out."""
        rng = np.random.default_rng((self.seed, step))
        return [int(i) for i in rng.choice(self.task.training, self.prompts)]

    def ids(self, number: int) -> list[int]:
        return opened(self.tokenizer, self.tokenizer.encode_ordinary(self.task.prompt(number)))

    def reward(self, number: int, answer: list[int]) -> float:
        """Reward of the ids of an answer; its end is no part of the text."""
        return self.task.reward(number, self.tokenizer.decode([id for id in answer if id not in self.ends]))


def sample_group(model: Any, prompt: list[int], count: int, max_new_tokens: int, stop: Collection[int] | int | None,
                 key: tuple[int, ...], temperature: float = 1.0) -> list[list[int]]:
    """`count` answers to one prompt, sampled side by side: a list of lists of ids, each ending with (one of the ids in)
    `stop` or cut."""
    stops = set(stop) if isinstance(stop, Collection) else {stop}
    cache, sampling = model.new_cache(count), Sampling(temperature)
    logits = model.decode(np.tile(np.array(prompt), (count, 1)), cache)[:, -1]              # (G, V)
    answers: list[list[int]] = [[] for _ in range(count)]
    for position in range(max_new_tokens):
        rng = np.random.default_rng((*key, position))
        tokens = [draw(distribution(row, sampling), rng) for row in logits]
        for answer, token in zip(answers, tokens):
            if stops.isdisjoint(answer[-1:]):
                answer.append(token)
        if all(answer[-1] in stops for answer in answers) or position == max_new_tokens - 1:
            break
        logits = model.decode(np.array(tokens)[:, None], cache)[:, -1]
    return answers


def advantages_of(rewards: np.ndarray) -> np.ndarray:
    """rewards (P, G) -> (P, G): above or below the group's mean, in its sample deviations."""
    return (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + SMALL)


def packed_answers(prompts: list[list[int]], answers: list[list[int]]) -> Batch:
    """A packed row, one document an answer, of which the answers' tokens are learned: a Batch."""
    tokens, targets, lengths = [], [], []
    for prompt, answer in zip(prompts, answers):
        tokens += (prompt + answer)[:-1]
        targets += [-1] * (len(prompt) - 1) + answer
        lengths.append(len(prompt) + len(answer) - 1)
    return Batch(np.array([tokens]), np.array([targets]), lengths)


def grpo_step(reference: GPT, clip: float = 0.2, beta: float = 0.04, updates: int = 1) -> Callable:
    """The step for `train`: sample, score, then `updates` gradient steps on the same answers. The prompts are cut into
    config.accumulate micro-batches, the answers of each packed into a row."""
    def step(model: Any, optimizer: AdamW, data: RewardData, config: TrainConfig, state: dict) -> dict:
        started = time.perf_counter()
        prompts, groups, rewards = roll_out(model, data, state["step"], optimizer.world)
        micros = [micro_batch(prompts, groups, advantages_of(rewards), part)
                  for part in np.array_split(np.arange(data.prompts), config.accumulate)]
        count = sum(len(answer) for group in groups for answer in group)
        before: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for _ in range(updates):
            found = {}
            for micro, grads in optimizer.micro_gradients(config.accumulate):
                batch, advantages = micros[micro]
                if micro not in before:                             # the policy that answered, and the reference
                    before[micro] = logp_of(model, batch), logp_of(reference, batch)
                found[micro] = grpo_gradient(model, grads, batch, *before[micro], advantages, clip, beta, count)
            loss, kl = map(float, optimizer.of_micros(found, config.accumulate).sum(0))
            row = update(model, optimizer, config, state, loss, count, started)
        return row | {"reward": float(rewards.mean()), "kl": kl}
    return step


def logp_of(model: Any, batch: Batch) -> np.ndarray:
    """log p of every token of a batch, 0 where it is not learned."""
    return -model.losses(batch.tokens, batch.targets, lengths=batch.lengths)[0]


def roll_out(model: Any, data: RewardData, step: int, world: World | None = None) -> tuple[list, list, np.ndarray]:
    """(prompts, a group of answers to each, rewards (P, G)) of one step; ranks share the prompts."""
    numbers = data.numbers(step)
    prompts = [data.ids(number) for number in numbers]
    groups = {place: sample_group(model, prompt, data.group, data.max_new_tokens, data.ends, (data.seed, step, place))
              for place, prompt in enumerate(prompts) if world is None or place % world.size == world.rank}
    answers = of_all_ranks(groups, data, world) if world else list(groups.values())
    rewards = [[data.reward(number, answer) for answer in group] for number, group in zip(numbers, answers)]
    return prompts, answers, np.array(rewards, np.float64)


def of_all_ranks(groups: dict[int, list[list[int]]], data: RewardData, world: World) -> list[list[list[int]]]:
    """The group of every prompt, from whichever rank has it. An answer is sent as its length and its padded ids."""
    rows = {}
    for place, group in groups.items():
        row = np.zeros((data.group, 1 + data.max_new_tokens))
        for line, answer in zip(row, group):
            line[:1 + len(answer)] = [len(answer), *answer]
        rows[place] = row.ravel()
    found = world.dealt(rows, data.prompts, data.group * (1 + data.max_new_tokens)).astype(int)
    return [[list(map(int, line[1:1 + line[0]])) for line in row.reshape(data.group, -1)] for row in found]


def micro_batch(prompts: list, groups: list, advantages: np.ndarray, part: np.ndarray) -> tuple[Batch, np.ndarray]:
    """(the answers to some prompts as a packed row, the advantage of each of their tokens)."""
    answers = [answer for place in part for answer in groups[place]]
    asked = [prompts[place] for place in part for _ in groups[place]]
    return packed_answers(asked, answers), np.repeat(advantages[part].ravel(), [len(answer) for answer in answers])


def grpo_gradient(model: Any, grads: Params, batch: Batch, old_logp: np.ndarray, ref_logp: np.ndarray,
                  weights: np.ndarray, clip: float, beta: float, count: int) -> tuple[float, float]:
    """Add to grads; returns this batch's share of the mean loss and KL over all `count` tokens of the answers."""
    learned = batch.targets[0] != -1
    negated, caches = model.losses(batch.tokens, batch.targets, lengths=batch.lengths)
    logp, old, ref = -negated[learned], old_logp[learned], ref_logp[learned]
    losses, saved = model.ops.grpo_loss_forward(logp, old, ref, weights.astype(logp.dtype), clip, beta)
    dlogp = model.ops.grpo_loss_backward(np.full(len(losses), 1 / count, logp.dtype), saved)
    dlosses = np.zeros_like(negated)
    dlosses[learned] = -dlogp
    model.backward(dlosses, caches, grads)
    back = (ref - logp).astype(np.float64)
    return float(losses.sum(dtype=np.float64)) / count, float((np.expm1(back) - back).sum()) / count


def validate_reward(model: Any, data: RewardData, config: TrainConfig, state: dict, run: Path,
                    eot_token: EndOfText) -> dict:
    """The validation for `train`: the negative of the mean reward stands for the loss, which is to be low."""
    reward = mean_reward(model, data)
    return keep_best(model, state, run, eot_token, {"val_loss": -reward, "val_reward": reward})


def mean_reward(model: Any, data: RewardData) -> float:
    """Mean reward of the likeliest answer to each problem held out."""
    rewards = []
    for number in data.task.held_out:
        (answer,) = sample_group(model, data.ids(number), 1, data.max_new_tokens, data.ends, (0,), temperature=0)
        rewards.append(data.reward(number, answer))
    return float(np.mean(rewards))
