"""Causal attention in tiles: which tiles of the T x T scores are computed, masked within, or never touched."""
from .svg import COLORS, RULE, rect, svg, text

ROWS, SIDE = 8, 22


def kinds(rows: int = ROWS) -> list[list[int]]:
    """0: never computed; 1: whole; 2: on the diagonal, masked within. Query tile by key tile."""
    return [[1 if key < query else 2 if key == query else 0 for key in range(rows)] for query in range(rows)]


def draw() -> str:
    parts = []
    for i, row in enumerate(kinds()):
        for j, kind in enumerate(row):
            fill, opacity = (("none", 1.0), (COLORS[0], 0.45), (COLORS[1], 0.45))[kind]
            parts.append(rect(70 + j * SIDE, 24 + i * SIDE, SIDE, SIDE, fill, RULE, opacity))
    parts += [rect(70, 24 + 5 * SIDE, ROWS * SIDE, SIDE, "none", COLORS[3]),
              text(70 + ROWS * SIDE / 2, 18, "tiles of keys and values, streamed", "middle"),
              text(60, 24 + ROWS * SIDE / 2, "tiles of queries", "middle", turn=-90)]
    keys = [(COLORS[0], "whole tile"), (COLORS[1], "masked within"), ("none", "never touched")]
    for n, (fill, name) in enumerate(keys):
        parts += [rect(268, 40 + 20 * n, 12, 12, fill, RULE, 0.45), text(286, 50 + 20 * n, name)]
    parts += [rect(268, 100, 12, 12, "none", COLORS[3]), text(286, 110, "what one block owns:"),
              text(286, 123, "its q, out, m and l stay"), text(286, 136, "on the chip")]
    return svg(__doc__ or "", 210, *parts)
