"""The loss curve of a run as a picture: loss.png, next to log.csv. Needs matplotlib (`pip install 'minillm[plot]'`)."""
from pathlib import Path

from ..storage.atomic import AnyPath, atomic_write
from .log import read_log


def plot_losses(run: AnyPath, floor: float | None = None) -> Path | None:
    """Write run/loss.png from run/log.csv; returns its path, or None where matplotlib is not installed.

    floor: a known lower bound in nats per token, drawn as a line.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = read_log(run)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per token)", title="Training and validation loss")
    for column, style in (("train_loss", {"alpha": 0.6}), ("val_loss", {"marker": "o"})):
        points = [(row["step"], row[column]) for row in rows if column in row]
        if points:
            axes.plot(*zip(*points), label=column.replace("_", " "), **style)
    if floor is not None:
        axes.axhline(floor, linestyle="--", color="black", label="entropy of the text")
    axes.legend()
    axes.grid(alpha=0.3)
    path = Path(run) / "loss.png"
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return path
