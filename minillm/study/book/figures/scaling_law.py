"""Loss at a fixed budget of FLOPs against the number of parameters, by the fitted law of Hoffmann et al. 2022."""
import numpy as np

from .svg import Axes, svg

BUDGETS = (1e18, 1e20, 1e22)


def loss_of(N: float, D: float) -> float:
    """Nats a token of N parameters trained on D tokens: their approach 3, equation 10."""
    return 1.69 + 406.4 / N ** 0.34 + 410.7 / D ** 0.28


def best(flops: float) -> tuple[float, float]:
    """(parameters, tokens a parameter) of the least loss with C = 6 N D."""
    sizes = np.geomspace(1e6, 1e12, 6001)
    losses = [loss_of(N, flops / (6 * N)) for N in sizes]
    N = float(sizes[int(np.argmin(losses))])
    return N, flops / (6 * N * N)


def draw() -> str:
    axes = Axes((1e6, 1e11), (1.8, 4.4), "x", (52, 12, 350, 170)).frame("parameters N", "loss, nats a token")
    for n, flops in enumerate(BUDGETS):
        N, ratio = best(flops)
        sizes = np.geomspace(max(1e6, N / 12), N * 12, 80)
        found = {size: loss_of(size, flops / (6 * size)) for size in sizes}
        shown = [size for size, loss in found.items() if loss < 4.9 and size < 1e11]
        axes.line(shown, [found[size] for size in shown], n)
        low = loss_of(N, flops / (6 * N))
        axes.points([N], [low], n)
        axes.write(N, low, f"10{'¹⁸' if n == 0 else '²⁰' if n == 1 else '²²'} FLOPs, {ratio:.0f} tokens a parameter", n,
                   "middle", dy=16, size=9)
    return svg(__doc__ or "", 218, str(axes))
