"""Error of a float32 sum of n positive numbers by the order of its additions, beside the bounds of each order."""
import numpy as np

from .svg import Axes, svg

LENGTHS = tuple(2 ** k for k in range(4, 18))
EPS = 2.0 ** -24


def errors(n: int) -> tuple[float, float, float]:
    """Relative errors of adding one by one, in 16 lanes, and in pairs (as a tree); the root mean square of 8 tries."""
    squares = np.zeros(3)
    for seed in range(8):
        x = np.random.default_rng((seed, n)).random(n, np.float32)
        exact = x.astype(np.float64).sum()
        lanes = np.cumsum(x.reshape(-1, 16), axis=0, dtype=np.float32)[-1]
        tree = x
        while len(tree) > 1:
            tree = tree[::2] + tree[1::2]
        found = np.cumsum(x, dtype=np.float32)[-1], np.cumsum(lanes, dtype=np.float32)[-1], tree[0]
        squares += [((float(value) - exact) / exact) ** 2 for value in found]
    one, many, pairs = np.sqrt(squares / 8)
    return float(one), float(many), float(pairs)


def draw() -> str:
    axes = Axes((14, 2 ** 17.2), (1e-9, 1e-2), "xy", (56, 12, 346, 176))
    axes.frame("numbers summed, n", "relative error", xticks=[2 ** 4, 2 ** 8, 2 ** 12, 2 ** 16],
               xnames=["16", "256", "4,096", "65,536"])
    found = list(zip(*(errors(n) for n in LENGTHS)))
    for n, values in enumerate(found):
        axes.line(LENGTHS, values, n)
    axes.line(LENGTHS, [n * EPS for n in LENGTHS], 5, 0.9).line(LENGTHS, [np.log2(n) * EPS for n in LENGTHS], 5, 0.9)
    axes.write(2 ** 10, 2 ** 10 * EPS, "bound n u", 5, "end", dy=-5)
    axes.write(2 ** 4.3, 5.5 * EPS, "bound u log₂ n", 5, dy=-4)
    axes.key(["one by one", "16 lanes", "in pairs"], 70, 28)
    return svg(__doc__ or "", 224, str(axes))
