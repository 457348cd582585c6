"""Memory of a training step by category, as the planner counts it: GPT-2 124M, T = 1,024, by micro-batch."""
from ....config import GPTConfig, TrainConfig
from ....kernels.select import choices
from ....train.memory import CATEGORIES, step_memory
from ....workbench.plan import PRESETS
from .svg import COLORS, Axes, rect, svg, text

CHOICES = (("B = 1", 1, False), ("B = 4", 4, False), ("B = 8", 8, False), ("B = 8, recompute", 8, True))


def sizes() -> list[tuple[str, dict[str, int]]]:
    """(name, bytes by category at the peak) of each choice."""
    backend, model = "cpu" if "cpu" in choices("linear") else "numpy", GPTConfig(**PRESETS["124M"])
    return [(name, step_memory(model, TrainConfig(batch_size=batch, recompute=again, backend=backend)))
            for name, batch, again in CHOICES]


def draw() -> str:
    found = sizes()
    most = max(sum(parts.values()) for _, parts in found) / 1e9
    axes = Axes((-0.6, len(found) - 0.4), (0, 1.1 * most), place=(46, 12, 260, 200))
    axes.frame("", "GB at the peak of a step", xticks=range(len(found)), xnames=[name for name, _ in found])
    for place, (_, parts) in enumerate(found):
        low = 0.0
        for n, name in enumerate(CATEGORIES):
            axes.bar(place, low, low + parts[name] / 1e9, 36, n)
            low += parts[name] / 1e9
        axes.write(place, low, f"{low:.2f}", anchor="middle", dy=-5)
    keys = [rect(316, 160 - 20 * n, 11, 11, COLORS[n]) + text(332, 169 - 20 * n, name)
            for n, name in enumerate(CATEGORIES)]
    return svg(__doc__ or "", 234, str(axes), *keys)
