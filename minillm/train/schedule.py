"""The learning rate as a function of the step: linear warm-up, then a cosine, or a plateau with a decay at its end.

The cosine knows its last step from the start. Warm-up, stable, decay (WSD) does not need to: until the decay begins, no
step depends on the end. So a training that is given a time can run at full rate until only the decay's share of the
time is left, and then decay over as many steps as fit into the rest.
"""
import math
from collections import deque

from ..config import TrainConfig

RECENT = 0.1            # share of the time, up to now, whose steps tell the speed


def cosine_schedule(step: int, warmup: int, steps: int, lr: float, min_lr: float) -> float:
    """Of step 0, 1, ...: linear up to lr over `warmup` steps, then half a cosine down to min_lr at `steps`.

        x = (step - warmup) / (steps - warmup)
        rate = lr * (step + 1) / warmup if step < warmup else min_lr + (lr - min_lr) * (1 + cos(pi * x)) / 2
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd_schedule(step: int, warmup: int, start: int, end: int, lr: float, min_lr: float) -> float:
    """Of step 0, 1, ...: linear up to lr over `warmup` steps, lr until `start`, then linear down to min_lr at `end`.

        x = max(0, (end - step) / (end - start))
        rate = lr * (step + 1) / warmup if step < warmup else min_lr + (lr - min_lr) * min(1, x)

    Source: Hu et al. 2024 (MiniCPM), arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392, compare shapes
    and lengths of the decay, and find that it ends where a cosine of the same length does.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    return min_lr + (lr - min_lr) * min(1.0, max(0.0, (end - step) / max(1, end - start)))


def learning_rate(config: TrainConfig, step: int, decay: list[int] | None = None) -> float:
    """Of a step, as config says. decay: [first step, end] of WSD's decay, where the time has decided it."""
    if config.schedule == "cosine":
        return cosine_schedule(step, config.warmup, config.steps, config.lr, config.min_lr)
    start, end = decay or planned_decay(config)
    return wsd_schedule(step, config.warmup, start, end, config.lr, config.min_lr)


def planned_decay(config: TrainConfig) -> list[int]:
    """[first step, end] of WSD's decay where only the number of steps ends the training."""
    return [config.steps - round(config.decay * config.steps), config.steps]


def last_step(config: TrainConfig, state: dict) -> int:
    """The step after which the training of this state ends, unless its decay is yet to begin by the time."""
    return min(config.steps, state["decay"][1]) if state.get("decay") else config.steps


class Timetable:
    """Ends a WSD training in time: as soon as only the decay's share of the time is left, or of the steps, it begins.

    started, finish: readings of the clock whose other readings `plan` is given; finish may be infinity.
    """

    def __init__(self, started: float, finish: float, config: TrainConfig):
        """Raises ValueError for a finish with another schedule: its rate would be high when the time is up."""
        if finish < math.inf and config.schedule != "wsd":
            raise ValueError(f'finish needs schedule "wsd", which can end when a time does: got "{config.schedule}"')
        self.config, self.finish = config, finish
        self.decay_at = finish - config.decay * (finish - started) if finish < math.inf else finish
        self.window = RECENT * (finish - started)
        self.recent = deque([started])                     # when the last steps ended

    def plan(self, state: dict, now: float) -> tuple[int, bool]:
        """(the last step, if steps go on at the speed of the recent ones; does the decay begin here), after a step.

        Where it begins, state["decay"] gets its [first step, end], and nothing is planned any more.
        """
        if self.finish == math.inf or state.get("decay"):
            return last_step(self.config, state), False
        self.recent.append(now)
        while len(self.recent) > 2 and self.recent[1] <= now - self.window:
            self.recent.popleft()
        pace = max(1e-9, now - self.recent[0]) / (len(self.recent) - 1)
        end = min(self.config.steps, state["step"] + max(0, int((self.finish - now) / pace)))
        begins = now >= self.decay_at or state["step"] >= planned_decay(self.config)[0]
        if begins:
            state["decay"] = [state["step"], end]
        return end, begins
