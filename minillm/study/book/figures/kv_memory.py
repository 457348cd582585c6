"""Memory of serving GPT-2 124M: weights, and the KV cache as sequences of the whole context are added."""
from ....config import GPTConfig
from ....models.quantized import WEIGHTS
from ....workbench.plan import PRESETS, serving_memory
from .svg import Axes, svg

SEQUENCES = (1, 2, 4, 8, 16, 32, 64)


def draw() -> str:
    model = GPTConfig(**PRESETS["124M"])
    axes = Axes((0.9, 70), (0.05, 8), "xy", (52, 12, 350, 160))
    axes.frame("sequences of 1,024 tokens held at once", "GB", xticks=SEQUENCES, yticks=[0.1, 0.2, 0.5, 1, 2, 5])
    for n, weights in enumerate(WEIGHTS[:3]):
        axes.line(SEQUENCES, [sum(serving_memory(model, count, weights).values()) / 1e9 for count in SEQUENCES], n)
    cache = [serving_memory(model, count)["kv_cache"] / 1e9 for count in SEQUENCES]
    axes.line(SEQUENCES, cache, 5)
    axes.key([f"all, weights {name}" for name in WEIGHTS[:3]], 66, 28).key(["KV cache alone"], 66, 67, first=5)
    return svg(__doc__ or "", 208, str(axes))
