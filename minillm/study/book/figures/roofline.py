"""The roofline of the machine of the newest benchmark: GFLOP/s of the ops against their arithmetic intensity."""
from .measured import Measured, newest
from .svg import Axes, svg

DIMS = "B=4 T=256 C=768 NH=12 V=50257"
NAMED = {("linear", "forward"): (-6, 4, "end"), ("linear_cross_entropy", "backward"): (10, -14, "end"),
         ("attention", "forward"): (6, 3, "start"), ("gelu", "backward"): (6, 8, "start"),
         ("layernorm", "forward"): (-6, -5, "end"), ("adamw", "update"): (-5, 8, "end"),
         ("attention_decode", "forward"): (-5, -5, "end"), ("embedding", "forward"): (6, 3, "start"),
         ("dropout", "forward"): (6, 3, "start"), ("cross_entropy", "forward"): (6, 13, "start"),
         ("mlp", "backward"): (2, 12, "start")}


def run() -> Measured:
    """The newest run of these shapes."""
    return newest("linear", "cpu", dims=DIMS)


def points() -> list[tuple[str, str, float, float]]:
    """(op, direction, FLOPs a byte, GFLOP/s) of each op's C++ kernel."""
    return [(row["op"], row["direction"], row["gflops"] / row["gbs"], row["gflops"])
            for row in run().rows if row.get("candidate") == "cpu" and row.get("dims") == DIMS
            and row.get("gbs") and row.get("gflops")]


def draw() -> str:
    peaks = run().peaks
    memory, compute = peaks["memory"]["gbs"], peaks["float32"]["gflops"]
    axes = Axes((0.02, 2000), (0.2, 1500), "xy", (52, 12, 356, 220))
    axes.frame("arithmetic intensity, FLOPs a byte that must move", "GFLOP/s")
    ridge = compute / memory
    axes.line([0.02, ridge, 2000], [0.02 * memory, compute, compute], 5, 1.2, dash="")
    axes.write(ridge, compute, f"{compute:,.0f} GFLOP/s, float32", dy=-6)
    axes.write(0.028, 0.028 * memory, f"{memory:,.0f} GB/s", dx=-6, dy=-14)
    for op, direction, intensity, rate in points():
        if intensity < axes.x[0]:
            continue
        axes.points([intensity], [rate], 0 if direction == "forward" else 1)
        if (op, direction) in NAMED:
            dx, dy, anchor = NAMED[op, direction]
            axes.write(intensity, rate, op, anchor=anchor, dx=dx, dy=dy, size=8.5)
    axes.points([250], [1.0], 0).write(250, 1.0, "forward", dx=7, dy=3)
    axes.points([250], [0.5], 1).write(250, 0.5, "backward, update", dx=7, dy=3)
    return svg(__doc__ or "", 268, str(axes))
