"""What the heads of a trained model attend to: one map for each layer and head, recorded from a real forward."""
from .stories_run import recorded
from .svg import COLORS, RULE, SOFT, cells, rect, svg, text

CHOSEN = ((0, 1), (1, 1), (1, 3), (2, 0))            # layer, head


def draw() -> str:
    run = recorded()
    words, side, parts = [word.strip() or "·" for word in run["tokens"]], 5.1, []
    n = len(words)
    for place, (layer, head) in enumerate(CHOSEN):
        x, y = 62 + place % 2 * 208, 58 + place // 2 * 210
        parts += [text(x + n * side / 2, y - 36, f"layer {layer}, head {head}", "middle", weight="bold"),
                  rect(x, y, n * side, n * side, "none", RULE),
                  cells(run["attention"][layer][head], x, y, side, COLORS[place])]
        parts += [text(x - 3, y + (i + 0.85) * side, word, "end", SOFT, 5.6) for i, word in enumerate(words)]
        parts += [text(x + (i + 0.8) * side, y - 3, word, "start", SOFT, 5.6, turn=-90) for i, word in enumerate(words)]
    return svg(__doc__ or "", 422, *parts)
