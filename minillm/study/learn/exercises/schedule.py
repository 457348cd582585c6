"""The learning rate: warm-up, then a cosine or a plateau.

At the start AdamW's averages know little, and a large step does harm: the rate grows linearly over `warmup` steps. At
the end small steps find the bottom of the valley: it falls to min_lr. Steps count from 0, and step 0 must learn, too:
in the warm-up the rate of step 0 is lr / warmup, that of step warmup - 1 is lr.

    cosine    from lr at step `warmup` down to min_lr at step `steps`, along half a period of a cosine (which is flat at
              both ends); min_lr after that
    WSD       lr until step `start`, then linearly down to min_lr at step `end`; min_lr after that

Write cosine_schedule and wsd_schedule: step, warmup, steps, start and end are integers, the rates floats. There may be
no warm-up (warmup = 0), and no room for a decay (warmup = steps, start = end): then either rate will do there, lr or
min_lr, but not a division by zero.

Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5 (the cosine); Hu et al. 2024 (MiniCPM), arXiv
2404.06395, section 4 (WSD).
"""
import math

from ....train import schedule
from ..exercise import Exercise
from ..rules import by_cases


def cosine_schedule(step, warmup, steps, lr, min_lr):
    """The learning rate of step 0, 1, ...: linear up to lr, then half a cosine down to min_lr at `steps`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def wsd_schedule(step, warmup, start, end, lr, min_lr):
    """The learning rate of step 0, 1, ...: linear up to lr, lr until `start`, then linear down to min_lr at `end`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    left = (end - step) / max(1, end - start)
    return min_lr + (lr - min_lr) * min(1.0, max(0.0, left))


def _cases(yours):
    """Both schedules at their corners, then between them."""
    def cosine(rule, step, warmup=10, steps=110, lr=0.8, min_lr=0.2):
        args = step, warmup, steps, lr, min_lr
        return f"cosine, step {step}: {rule}", yours.cosine_schedule(*args), schedule.cosine_schedule(*args)

    def wsd(rule, step, warmup=10, start=60, end=100, lr=0.8, min_lr=0.2):
        args = step, warmup, start, end, lr, min_lr
        return f"WSD, step {step}: {rule}", yours.wsd_schedule(*args), schedule.wsd_schedule(*args)

    yield cosine("the warm-up's first step must learn, at lr / warmup", 0)
    yield cosine("the warm-up must be linear", 4)
    yield cosine("the warm-up's last step must have the full rate", 9)
    yield cosine("without warm-up the first step has the full rate", 0, warmup=0)
    yield cosine("where the warm-up ends the cosine begins, at its top", 10)
    yield cosine("half the way down the rate is the mean of lr and min_lr", 60)
    yield cosine("the decay must be a cosine, flat at both ends, not a line", 35)
    yield cosine("at the last step the rate must be min_lr, and not rise after it: half a period, no more", 110)
    yield cosine("beyond the last step the rate must stay min_lr", 150)
    yield cosine("a decay of one step must reach min_lr", 11, steps=11)
    yield ("cosine, step 10: no step is left for the decay: lr or min_lr, without a division by zero",
           round(yours.cosine_schedule(10, 10, 10, 0.8, 0.2), 9) in (0.8, 0.2))
    yield wsd("the warm-up's first step must learn, at lr / warmup", 0)
    yield wsd("the warm-up must be linear", 4)
    yield wsd("without warm-up the first step has the full rate", 0, warmup=0)
    yield wsd("between warm-up and decay the rate must be lr", 30)
    yield wsd("until the decay begins the rate must be lr", 60)
    yield wsd("until the decay begins the rate must be lr, though it is of one step", 60, end=61)
    yield wsd("the decay must be a line from lr to min_lr", 80)
    yield wsd("the decay must end at min_lr", 100)
    yield wsd("after the decay the rate must stay min_lr", 130)
    yield ("WSD, step 60: no step is left for the decay: lr or min_lr, without a division by zero",
           round(yours.wsd_schedule(60, 10, 60, 60, 0.8, 0.2), 9) in (0.8, 0.2))


EXERCISE = Exercise(
    __file__, solve=("cosine_schedule", "wsd_schedule"), needs=("adamw",), checks=by_cases(_cases),
    hints=("The warm-up comes first: if step < warmup, lr * (step + 1) / warmup. With warmup = 0 no step gets there.",
           "progress = (step - warmup) / (steps - warmup) goes from 0 to 1; hold it at 1, and the divisor at 1.",
           "(1 + cos(pi * progress)) / 2 falls from 1 to 0, flat at both ends; stretch it between lr and min_lr.",
           "For WSD, the share that is left, (end - step) / (end - start), held in [0, 1], is also right before the "
           "decay, where it is above 1."))
