"""Dropout masks are functions of (seed, step, site): the same key twice, another step, another site."""
from ....ops.dropout import keep_mask
from .svg import COLORS, RULE, cells, rect, svg, text

KEYS = (((7, 0, 1), "(7, 0, 1)"), ((7, 0, 1), "(7, 0, 1) again"), ((7, 1, 1), "(7, 1, 1)"), ((7, 0, 2), "(7, 0, 2)"))
ROWS, COLUMNS, P = 24, 24, 0.25


def draw() -> str:
    parts, side = [], 3.7
    for place, (key, name) in enumerate(KEYS):
        dropped = ~keep_mask(ROWS * COLUMNS, P, key).reshape(ROWS, COLUMNS)
        x = 12 + place * 102
        parts += [text(x + COLUMNS * side / 2, 14, name, "middle", size=9), cells(dropped, x, 20, side, COLORS[place]),
                  rect(x, 20, COLUMNS * side, ROWS * side, "none", RULE),
                  text(x + COLUMNS * side / 2, 122, f"{100 * dropped.mean():.1f}% dropped", "middle", size=9)]
    return svg(__doc__ or "", 130, *parts)
