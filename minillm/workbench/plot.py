"""The error of a difference quotient against its step, as a picture.

Needs matplotlib (`pip install 'minillm[plot]'`).
"""
from collections.abc import Mapping, Sequence

from ..storage.atomic import AnyPath, atomic_write


def plot_curves(path: AnyPath, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write a PNG with a curve for each input: truncation with slope 2, then rounding; a level is a wrong gradient."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'minillm[plot]'") from None
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        seen = [row for row in curve if row["error"] > 0]
        axes.loglog([row["h"] for row in seen], [row["error"] for row in seen], marker=".", label=name, color=f"C{i}")
        axes.loglog([row["h"] for row in curve], [row["rounding"] for row in curve], linestyle=":", color=f"C{i}")
    axes.set(xlabel="step h", ylabel="|central difference - backward|", title="truncation h^2; dotted: rounding eps/h")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
