"""How a GEMM is cut up: the block of K, the strip of B, the panels of A and B, the tile of C in registers."""
from .svg import COLORS, SOFT, arrow, rect, svg, text


def draw() -> str:
    a, b, c = COLORS[0], COLORS[1], COLORS[2]
    parts = [rect(40, 120, 90, 130, a, a, 0.08), rect(58, 120, 30, 130, a, a, 0.15), rect(58, 156, 30, 16, a, a, 0.75),
             rect(150, 12, 210, 90, b, b, 0.08), rect(150, 30, 210, 30, b, b, 0.12), rect(214, 30, 64, 30, b, b, 0.3),
             rect(230, 30, 16, 30, b, b, 0.85),
             rect(150, 120, 210, 130, c, c, 0.08), rect(214, 120, 64, 130, c, c, 0.12),
             rect(230, 156, 16, 16, c, c, 0.85)]
    words = [(40, 264, "A (M, K)", SOFT), (310, 24, "B (K, N)", SOFT), (310, 264, "C (M, N)", SOFT),
             (66, 116, "KC", a), (24, 168, "MR", a), (250, 72, "NR", b), (283, 49, "strip: L2", b), (365, 49, "KC", b),
             (251, 168, "tile: registers", c), (92, 190, "panel: L1", a)]
    parts += [text(x, y, word, color=color, size=9) for x, y, word, color in words]
    return svg(__doc__ or "", 272, *parts, arrow(92, 164, 226, 164), arrow(238, 64, 238, 152))
