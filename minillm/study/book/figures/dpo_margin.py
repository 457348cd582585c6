"""DPO's loss and the size of its gradient against the margin of the pair, for two values of beta."""
import numpy as np

from ....ops.losses.dpo_loss import dpo_loss_backward, dpo_loss_forward
from .svg import Axes, svg


def draw() -> str:
    margins = np.linspace(-30, 30, 241)
    zero = np.zeros_like(margins)
    axes = Axes((-30, 30), (0, 3.2), place=(52, 12, 350, 150))
    axes.frame("margin in nats: log-ratio of the chosen less that of the rejected answer", "loss, gradient / beta")
    for n, beta in enumerate((0.1, 0.5)):
        losses, cache = dpo_loss_forward(margins, zero, zero, zero, beta)
        slopes = dpo_loss_backward(np.ones_like(losses), cache)[0]
        shown = losses < 3.2
        axes.line(margins[shown], losses[shown], 2 * n).line(margins, np.abs(slopes) / beta, 2 * n + 1)
    axes.key(["loss, beta 0.1", "gradient, beta 0.1", "loss, beta 0.5", "gradient, beta 0.5"], 300, 26)
    return svg(__doc__ or "", 196, str(axes))
