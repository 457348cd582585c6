"""A plan as a picture: FLOPs by op and phase, memory by category, the peak for each choice, hours by device.

Needs matplotlib (`pip install 'minillm[plot]'`).
"""
from pathlib import Path
from typing import Any

from ..storage.atomic import AnyPath, atomic_write


def plot_plan(p: dict[str, Any], path: AnyPath) -> Path:
    """Write the plan (of plan.py) to a PNG; returns its path. Raises ImportError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'minillm[plot]'") from None
    figure = Figure(figsize=(12, 8), layout="constrained")
    flops, memory, choices, devices = figure.subplots(2, 2).flat
    figure.suptitle(f"{p['parameters']:,} parameters, {p['tokens']['planned']:,} tokens")
    draw_flops(flops, p)
    draw_memory(memory, p)
    draw_choices(choices, p)
    draw_devices(devices, p)
    with atomic_write(Path(path), "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(path)


def draw_flops(axes: Any, p: dict[str, Any]) -> None:
    """A bar for each op, its phases side by side in one colour each."""
    training = p["flops"]["training"]
    ops = sorted({op for phase in training.values() for op in phase},
                 key=lambda op: sum(phase.get(op, 0) for phase in training.values()))
    left = [0.0] * len(ops)
    for name, phase in training.items():
        widths = [phase.get(op, 0) / 1e12 for op in ops]
        axes.barh(ops, widths, left=left, label=name)
        left = [a + b for a, b in zip(left, widths)]
    axes.set(title="a training step", xlabel="TFLOP")
    axes.legend()


def draw_memory(axes: Any, p: dict[str, Any]) -> None:
    """What each category takes at most, and at the moment of the peak."""
    m = p["memory"]["training"]
    names = list(m["sizes"])
    axes.barh(names, [m["sizes"][name] / 1e9 for name in names], color="C7", alpha=0.4, label="at most")
    axes.barh(names, [m["at_peak"][name] / 1e9 for name in names], height=0.5, label="at the peak")
    axes.set(title=f"memory: {m['peak'] / 1e9:.2f} GB at the peak", xlabel="GB")
    axes.invert_yaxis()
    axes.legend()


def draw_choices(axes: Any, p: dict[str, Any]) -> None:
    """The peak against the number of processes, a line for each choice; and the memory there is."""
    for row in p["memory"]["choices"]:
        label = f"{row['precision']}{', recompute' * row['recompute']}, accumulate={row['accumulate']}"
        axes.plot([int(n) for n in row["peak"]], [size / 1e9 for size in row["peak"].values()], marker="o", label=label)
    if "fits" in p:
        axes.axhline(p["fits"]["memory"] / 1e9, color="black", linestyle="--", label="given")
    axes.set(title="peak of each process", xlabel="processes", ylabel="GB", ylim=(0, None))
    axes.legend(fontsize=8)


def draw_devices(axes: Any, p: dict[str, Any]) -> None:
    """Hours, and beside each bar what they cost."""
    names = [device["name"] for device in p["devices"]]
    bars = axes.barh(names, [device["hours"] for device in p["devices"]])
    axes.bar_label(bars, [f" ${device['dollars']:,.0f}" if device["price"] else "" for device in p["devices"]])
    axes.set(title=f"hours on {p['processes']} of", xscale="log")
    axes.margins(x=0.1)
    axes.invert_yaxis()
