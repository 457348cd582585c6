"""The online softmax, tile by tile: running maximum, running sum, and the weights that they give in the end."""
import numpy as np

from .svg import Axes, svg

TILE = 6


def scores() -> np.ndarray:
    """One row of scores, its largest in the third tile."""
    found = np.random.default_rng(4).normal(0, 1.3, 4 * TILE)
    found[2 * TILE + 2] = 4.2
    return found


def online(values: np.ndarray, tile: int = TILE) -> list[tuple[float, float]]:
    """(maximum, sum of exp(value - maximum)) after each tile; the sum so far shrinks when the maximum grows."""
    top, total, found = -np.inf, 0.0, []
    for start in range(0, len(values), tile):
        part = values[start:start + tile]
        larger = max(top, part.max())
        total = total * np.exp(top - larger) + np.exp(part - larger).sum()
        top = larger
        found.append((float(top), float(total)))
    return found


def draw() -> str:
    values, states = scores(), online(scores())
    axes = Axes((-0.5, len(values) - 0.5), (-4, 5.4), place=(52, 14, 350, 130))
    axes.frame("", "score", xticks=[])
    places = range(len(values))
    axes.points(places, values, 0)
    sums = Axes((-0.5, len(values) - 0.5), (0, 4), place=(52, 166, 350, 80))
    sums.frame("key s, in tiles of 6", "running sum")
    for i, (top, total) in enumerate(states):
        ends = [i * TILE - 0.5, (i + 1) * TILE - 0.5]
        axes.line(ends, [top, top], 1)
        sums.line(ends, [total, total], 2, dash="")
        sums.write(ends[0] + TILE / 2, total, f"{total:.3f}", anchor="middle", dy=-5)
        axes.write(ends[0] + TILE / 2, top, f"m = {top:.3f}", anchor="middle", dy=-5)
    return svg(__doc__ or "", 286, str(axes), str(sums))
