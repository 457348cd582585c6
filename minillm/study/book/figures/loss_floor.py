"""Loss against the entropy of the text: a small model on the stories comes down to a floor that is known exactly."""
from ....data.sources.stories import entropy_bits, expected_bytes
from .stories_run import recorded
from .svg import Axes, svg


def floor() -> float:
    """Bits per byte below which no model's expected loss on the stories can be."""
    return entropy_bits() / expected_bytes()


def draw() -> str:
    run = recorded()
    curve = [row for row in run["curve"] if row["step"]]
    tokens = [row["step"] * run["tokens_per_step"] for row in curve]
    bits = [row["bits_per_byte"] for row in curve]
    axes = Axes((tokens[0], 1.2 * tokens[-1]), (0.09, 12), "xy", (52, 12, 350, 196))
    axes.frame("tokens trained on", "bits per byte, held-out stories", yticks=[0.1, 0.2, 0.5, 1, 2, 5, 10])
    axes.level(8, "uniform over bytes: 8", anchor="end")
    axes.level(floor(), f"entropy of the stories: {floor():.4f}", 1, "start")
    axes.line(tokens, bits).points(tokens, bits)
    axes.write(tokens[-1], bits[-1], f"{bits[-1]:.3f}", 0, "end", dx=2, dy=-22)
    return svg(__doc__ or "", 242, str(axes))
