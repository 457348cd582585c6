"""The steps of the ladder of `linear` and `attention`, forward: GFLOP/s of each variant in the newest result."""
from .measured import newest, rows
from .svg import Axes, svg

LADDERS = (("linear", "B=1 T=256 C=768 NH=12 V=50257"), ("attention", "B=1 T=512 C=768 NH=12 V=50257"))
VARIANTS = {"cpu/1_naive": "1 naive", "cpu/2_blocked": "2 blocked", "cpu/3_simd": "3 simd", "cpu": "default",
            "numpy": "NumPy", "torch": "PyTorch"}


def ladder(op: str, dims: str) -> list[tuple[str, float]]:
    """(name, GFLOP/s) of the variants that were measured."""
    found = {row["candidate"]: row["gflops"] for row in rows(op, dims=dims, direction="forward", dtype="float32")}
    return [(name, found[variant]) for variant, name in VARIANTS.items() if variant in found]


def draw() -> str:
    parts, peak = [], newest("linear", dims=LADDERS[0][1]).peaks["float32"]["gflops"]
    for place, (op, dims) in enumerate(LADDERS):
        steps = ladder(op, dims)
        axes = Axes((-0.6, len(steps) - 0.4), (0.4, 1000), "y", (46 + 198 * place, 22, 166, 160))
        axes.frame("", "GFLOP/s" if place == 0 else "", op, xticks=range(len(steps)), xnames=[""] * len(steps))
        axes.level(peak, f"peak {peak:,.0f}", anchor="start")
        for x, (name, rate) in enumerate(steps):
            axes.bar(x, 0.4, rate, 17, 5 if name in ("NumPy", "PyTorch") else 0)
            axes.write(x, rate, f"{rate:,.3g}", anchor="middle", dy=-3, size=8.5)
            axes.write(x, 0.4, name, anchor="middle", dy=12 + 11 * (x % 2), size=8.5)
        parts.append(str(axes))
    return svg(__doc__ or "", 214, *parts)
