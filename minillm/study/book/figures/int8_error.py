"""Error of int8 weights by the size of a scale's group: normal weights, with and without a few outliers a channel."""
import numpy as np

from ....models.quantized import Quantized, dequantized, to_bfloat16, to_int8
from .svg import Axes, svg

GROUPS = (8, 16, 32, 64, 128, 256, 768)


def matrices() -> dict[str, np.ndarray]:
    """(768, 64) float32 weights of deviation 0.02; the second kind has one row in a hundred ten times larger."""
    rng = np.random.default_rng(0)
    plain = (0.02 * rng.standard_normal((768, 64))).astype(np.float32)
    outliers = plain.copy()
    outliers[::100] *= 10
    return {"normal": plain, "with outliers": outliers}


def relative(matrix: np.ndarray, stored: Quantized) -> float:
    """Root of the summed squares of what changed, over that of the weights."""
    return float(np.linalg.norm(dequantized(stored) - matrix) / np.linalg.norm(matrix))


def draw() -> str:
    axes = Axes((7, 900), (1e-3, 5e-2), "xy", (56, 12, 346, 150))
    axes.frame("weights that share a scale", "relative error", xticks=GROUPS,
               yticks=[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2])
    found = matrices()
    for n, matrix in enumerate(found.values()):
        axes.line(GROUPS, [relative(matrix, to_int8(matrix, group)) for group in GROUPS], n)
        axes.points(GROUPS, [relative(matrix, to_int8(matrix, group)) for group in GROUPS], n)
    bits = relative(found["normal"], to_bfloat16(found["normal"]))
    axes.level(bits, f"bfloat16: {bits:.5f}", anchor="start")
    axes.key([f"int8, {name}" for name in found], 70, 28)
    return svg(__doc__ or "", 196, str(axes))
