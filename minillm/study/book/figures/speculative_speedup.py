"""Speed-up of speculative decoding against the number of drafted tokens: theory by acceptance rate, and as measured."""
from ....generation.speculative import theoretical_speedup
from .measured import rows
from .svg import Axes, svg

RATES, COST = (0.6, 0.8, 0.9, 0.95), 0.1
DRAFTED = range(1, 17)


def draw() -> str:
    axes = Axes((1, 16), (0.5, 6), place=(52, 12, 350, 186))
    axes.frame("drafted tokens k", "speed-up", xticks=[1, 3, 5, 8, 10, 12, 14, 16])
    for n, rate in enumerate(RATES):
        speeds = [theoretical_speedup(rate, k, COST) for k in DRAFTED]
        axes.line(DRAFTED, speeds, n)
        axes.write(16, speeds[-1], f"α = {rate:g}", n, "end", dx=-2, dy=-5 if n != 1 else 12)
    for n, temperature in enumerate(("0.0", "0.8")):
        found = {int(row["candidate"].split("k=")[1]): row["x_minillm"] for row in rows("speculative", "draft k=5")
                 if row["candidate"].startswith("draft k=") and temperature in row["dims"]}
        axes.points(found, found.values(), 4 + n, 3)
    axes.points([1.5], [5.6], 4, 3).write(1.5, 5.6, "measured, greedy", dx=7, dy=3)
    axes.points([1.5], [5.2], 5, 3).write(1.5, 5.2, "measured, temperature 0.8", dx=7, dy=3)
    axes.write(1.5, 4.8, f"lines: theory, a drafted token costs c = {COST:g}", dx=-4, dy=3)
    return svg(__doc__ or "", 234, str(axes))
