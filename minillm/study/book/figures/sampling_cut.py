"""One distribution under temperature, top-k, top-p and min-p: what each leaves of the tail."""
import numpy as np

from ....generation.sampling import Sampling, distribution
from .svg import Axes, svg

CHOICES = (("T = 1", Sampling()), ("T = 0.6", Sampling(temperature=0.6)), ("top-k 5", Sampling(top_k=5)),
           ("top-p 0.8", Sampling(top_p=0.8)), ("min-p 0.2", Sampling(min_p=0.2)))
LOGITS = np.array([3.2, 2.6, 2.3, 1.6, 1.2, 0.9, 0.5, 0.1, -0.4, -1.0, -1.5, -2.2])


def distributions() -> list[tuple[str, np.ndarray]]:
    """(name, probabilities), by the package's own function."""
    return [(name, distribution(LOGITS, sampling, [0], 1)) for name, sampling in CHOICES]


def draw() -> str:
    parts = []
    for place, (name, p) in enumerate(distributions()):
        axes = Axes((-0.7, len(p) - 0.3), (0, 0.66), place=(30 + 79 * place, 22, 68, 110))
        axes.frame("token" if place == 2 else "", "", name, xticks=[], yticks=[0, 0.2, 0.4, 0.6] if place == 0 else [])
        for token, share in enumerate(p):
            axes.bar(token, 0, share, 4.6, place)
        axes.write(11, 0.6, f"{(p > 0).sum()} tokens", anchor="end", size=8.5)
        parts.append(str(axes))
    return svg(__doc__ or "", 166, *parts)
