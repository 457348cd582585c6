"""The curves of a run as a picture: loss.png, next to log.csv, from which other tools draw their own.

Needs matplotlib (`pip install 'minillm[plot]'`).
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..storage.atomic import AnyPath, atomic_write
from .log import read_log

PANELS = {"lr": "learning rate", "grad_norm": "gradient norm", "tokens_per_second": "tokens per second"}


def plot_losses(run: AnyPath, floor: float | None = None) -> Path | None:
    """Write run/loss.png (loss, learning rate, gradient norm, speed) from run/log.csv.

    Returns its path, or None where matplotlib is not installed.

    floor: a known lower bound in nats per token, drawn as a line.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = read_log(run)
    figure = Figure(figsize=(10, 7), layout="constrained")
    loss, *others = figure.subplots(2, 2, sharex=True).flat
    points(loss, rows, "train_loss", alpha=0.3, label="training")
    points(loss, rows, "train_loss", smooth=True, color="C0", label="training, smoothed")
    points(loss, rows, "val_loss", marker="o", color="C1", label="validation")
    if floor is not None:
        loss.axhline(floor, linestyle="--", color="black", label="entropy of the text")
    loss.set(title="loss", ylabel="nats per token")
    if loss.get_lines():
        loss.legend()
    for axes, (column, title) in zip(others, PANELS.items()):
        points(axes, rows, column, color="C0")
        axes.set(title=title)
    for axes in (loss, *others):
        axes.grid(alpha=0.3)
    for axes in others[1:]:
        axes.set(xlabel="step")
    path = Path(run) / "loss.png"
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def points(axes: Any, rows: list[dict[str, float]], column: str, smooth: bool = False, **style: Any) -> None:
    """Draw a column of the log against the step, if it has any numbers."""
    found = [(row["step"], row[column]) for row in rows if column in row]
    if found:
        steps, values = zip(*found)
        axes.plot(steps, smoothed(values) if smooth else values, **style)


def smoothed(values: Sequence[float]) -> list[float]:
    """The exponential moving average over about a fortieth of them, corrected for its beginning as Adam's is."""
    decay, mean, found = 1 - 1 / max(1, len(values) / 40), 0.0, []
    for count, value in enumerate(values, 1):
        mean = decay * mean + (1 - decay) * value
        found.append(mean / (1 - decay ** count))
    return found
