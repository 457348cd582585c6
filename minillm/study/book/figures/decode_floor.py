"""A decoded token of GPT-2 124M beside a plain read of as many bytes: decoding is bound by memory bandwidth."""
from .measured import rows
from .svg import Axes, svg

PAIRS = (("float32", "minillm fp32", "plain read fp32"), ("bfloat16", "minillm bf16", "plain read bf16"),
         ("int8", "minillm int8", "plain read int8"))
NAMES = [name for _, *pair in PAIRS for name in pair]


def draw() -> str:
    parts = []
    for place, batch in enumerate((1, 8)):
        found = {row["candidate"]: row["median_ms"]
                 for row in rows("decode", *NAMES, dims=f"124M B={batch} T=132")}
        axes = Axes((-0.6, 2.6), (0, 21), place=(46 + 198 * place, 22, 160, 160))
        axes.frame("weights", "ms a step" if place == 0 else "", f"B = {batch}" + (" sequences" if batch > 1 else ""),
                   xticks=range(3), xnames=[name for name, *_ in PAIRS])
        for x, (_, ours, read) in enumerate(PAIRS):
            axes.bar(x - 0.2, 0, found[ours], 18, 0).bar(x + 0.2, 0, found[read], 18, 5)
            axes.write(x - 0.2, found[ours], f"{found[ours]:.1f}", anchor="middle", dy=-4, size=8.5)
            axes.write(x + 0.2, found[read], f"{found[read]:.1f}", anchor="middle", dy=-4, size=8.5)
        if place:
            axes.key(["decode"], 330, 34, "bar").key(["plain read"], 330, 47, "bar", 5)
        parts.append(str(axes))
    return svg(__doc__ or "", 216, *parts)
