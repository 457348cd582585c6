"""The residual stream at initialisation: its deviation by depth, with GPT-2's scaled projections and without."""
import numpy as np

from ....config import GPTConfig
from ....kernels.select import select
from ....models.gpt2 import GPT
from .svg import Axes, svg

CONFIG = GPTConfig(n_layer=24, n_head=4, n_embd=64, block_size=16, vocab_size=128)


def deviations(scaled: bool) -> list[float]:
    """Of the stream before block 0, 1, ..., and after the last, as the LayerNorms inside the model read it."""
    found: list[float] = []
    ops = select("numpy")

    def watched(x: np.ndarray, *rest: object) -> tuple:
        found.append(float(x.std()))
        return ops.layernorm_forward(x, *rest)

    def both(x: np.ndarray, added: np.ndarray, *rest: object) -> tuple:
        (stream, out), cache = ops.residual_layernorm_forward(x, added, *rest)
        found.append(float(stream.std()))
        return (stream, out), cache

    model = GPT(CONFIG, seed=0)
    if not scaled:
        for name, array in model.params.items():
            if name.endswith("c_proj.weight"):
                array *= np.sqrt(2 * CONFIG.n_layer)
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (1, CONFIG.block_size))
    model.on(ops._replace(layernorm_forward=watched, residual_layernorm_forward=both)).forward(tokens)
    return found


def draw() -> str:
    axes = Axes((0, 2 * CONFIG.n_layer), (0, 0.2), place=(52, 12, 350, 150))
    both = [deviations(True), deviations(False)]
    axes = Axes((0, 2 * CONFIG.n_layer), (0, 1.1 * max(map(max, both))), place=(52, 12, 350, 150))
    axes.frame("sublayers passed", "deviation of the residual stream")
    for n, found in enumerate(both):
        axes.line(range(len(found)), found, n)
    axes.key(["projections divided by √(2 n_layer)", "all matrices of deviation 0.02"], 70, 28)
    return svg(__doc__ or "", 196, str(axes))
