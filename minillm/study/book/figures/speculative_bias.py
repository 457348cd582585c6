"""What wrong acceptance rules of speculative decoding do to the distribution: exact, for one token with given p, q."""
from collections.abc import Callable

import numpy as np

from ....generation.speculative import residual
from .svg import Axes, svg

P = np.array([0.42, 0.22, 0.16, 0.12, 0.08])            # the target's distribution of the next token
Q = np.array([0.25, 0.40, 0.10, 0.05, 0.20])            # the draft's


def outcome(accepted: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The distribution of the token: x is drafted and accepted, or something is rejected and `otherwise` drawn."""
    return Q * accepted + (Q * (1 - accepted)).sum() * otherwise


def rules() -> dict[str, np.ndarray]:
    """The distribution of the token under each rule, exactly."""
    right = np.minimum(1, P / Q)
    greedy = (np.arange(len(P)) == P.argmax()).astype(float)
    return {"min(1, p / q), residual": outcome(right, residual(P, Q)),
            "min(1, p / q), but draws from p": outcome(right, P),
            "accepts with probability p": outcome(P, residual(P, Q)),
            "accepts the argmax of p alone": outcome(greedy, P)}


def distance(found: np.ndarray, measure: Callable = np.abs) -> float:
    """Total variation distance from the target's distribution."""
    return float(measure(found - P).sum() / 2)


def draw() -> str:
    axes = Axes((-0.6, 4.6), (0, 0.66), place=(52, 14, 350, 180))
    axes.frame("token", "probability", xticks=range(5), xnames=list("abcde"))
    for n, found in enumerate(rules().values()):
        for token, share in enumerate(found):
            axes.bar(token + (n - 1.5) * 0.19, 0, share, 11, n)
    for token, share in enumerate(P):
        axes.line([token - 0.42, token + 0.42], [share, share], width=1.1, dash="2 1.5", color="#000000")
    axes.key([f"{name}: off by {distance(found):.3f}" for name, found in rules().items()], 190, 28, "bar")
    axes.parts.append('<path d="M198 76.5 L208 76.5" stroke="#000000" stroke-dasharray="2 1.5" stroke-width="1.1"/>')

    return svg(__doc__ or "", 230, str(axes), '<text x="217" y="80" font-size="9.5">the target\'s p</text>')
