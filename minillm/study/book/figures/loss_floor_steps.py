"""The recorded run on the stories by step: its learning rate, and how far its loss is above the entropy."""
from ....train.schedule import wsd_schedule
from .loss_floor import floor
from .stories_run import RATE, recorded
from .svg import Axes, svg


def draw() -> str:
    run = recorded()
    steps, total = [row["step"] for row in run["curve"]], run["steps"]
    rates = [wsd_schedule(step, 50, round(0.6 * total), total, RATE, 0.0) / RATE for step in range(0, total + 1, 10)]
    upper = Axes((0, total), (0, 1.1), place=(52, 12, 350, 60)).frame("", "rate / lr", xticks=[], yticks=[0, 0.5, 1])
    upper.line(range(0, total + 1, 10), rates, 1)
    above = [row["bits_per_byte"] - floor() for row in run["curve"]]
    lower = Axes((0, total), (0.005, 5), "y", (52, 88, 350, 120)).frame("step", "bits per byte above the floor")
    lower.line(steps, above).points(steps, above)
    return svg(__doc__ or "", 244, str(upper), str(lower))
