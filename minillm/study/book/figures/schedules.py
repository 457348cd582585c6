"""Learning-rate schedules: a cosine, and warm-up, stable, decay, whose end may be moved until the decay begins."""
from ....train.schedule import cosine_schedule, wsd_schedule
from .svg import Axes, svg

STEPS, WARMUP, RATE, LEAST = 1000, 60, 1.0, 0.1


def draw() -> str:
    steps = range(0, STEPS + 1, 10)
    axes = Axes((0, STEPS), (0, 1.15), place=(52, 14, 350, 150))
    axes.frame("step", "learning rate / lr")
    axes.line(steps, [cosine_schedule(step, WARMUP, STEPS, RATE, LEAST) for step in steps], 0)
    axes.line(steps, [wsd_schedule(step, WARMUP, 600, STEPS, RATE, LEAST) for step in steps], 1)
    axes.line(range(0, 701, 10), [wsd_schedule(step, WARMUP, 420, 700, RATE, LEAST) for step in range(0, 701, 10)], 2)
    axes.key(["cosine, 1,000 steps", "WSD, 1,000 steps, decay over 0.4", "the same WSD, ended at 700"], 70, 112)
    return svg(__doc__ or "", 198, str(axes))
