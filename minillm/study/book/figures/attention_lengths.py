"""Attention, forward and backward, as the context grows: time with T squared, memory with T."""
from .measured import rows
from .svg import Axes, svg


def draw() -> str:
    parts, timed = [], rows("attention_lengths", "minillm", "torch")
    for place, (key, label) in enumerate((("median_ms", "ms"), ("memory_mb", "MB grown"))):
        axes = Axes((400, 10000), (2, 2000), "xy", (48 + 208 * place, 12, 156, 150))
        axes.frame("tokens T", label, xticks=[512, 2048, 8192], yticks=[10, 100, 1000])
        for n, name in enumerate(("minillm", "torch")):
            found = {row["tokens"]: row[key] for row in timed if row["candidate"] == name}
            axes.line(found, found.values(), n).points(found, found.values(), n)
        if place:
            lengths = (512, 8192)
            axes.line(lengths, [4 * 4 * T * T / 1e6 for T in lengths], 2)
            axes.key(["minillm", "PyTorch", "the scores alone"], 264, 26)
        parts.append(str(axes))
    return svg(__doc__ or "", 196, *parts)
