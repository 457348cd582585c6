"""The optimizer: AdamW over one flat buffer, global-norm clipping, and the warm-up + cosine schedule."""
import math

from .ops.adamw import adamw_update
from .ops.sum_squares import sum_squares


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) on Params: weight decay on matrices only, by one slice of the flat buffer."""

    def __init__(self, params, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, ops=None):
        """params: Params, updated in place. `ops` (from registry.select) may bring a compiled update."""
        self.params, self.lr, self.betas, self.eps, self.weight_decay = params, lr, betas, eps, weight_decay
        self.m, self.v, self.steps = params.zeros_like(), params.zeros_like(), 0
        self.grads = params.zeros_like()        # one buffer for all steps: a fresh one would be faulted in page by page
        self.update = ops.adamw_update if ops else adamw_update

    def zero_grads(self):
        """The gradient buffer, set to zero, for `loss_and_grads(..., grads=...)` to add to."""
        self.grads.clear()
        return self.grads

    def step(self, grads, lr=None, scale=1.0):
        """One update. grads: Params of the same shapes; lr overrides the default; scale multiplies the gradient."""
        self.steps += 1
        self.update(self.params.flat, grads.flat, self.m.flat, self.v.flat, self.steps, self.lr if lr is None else lr,
                    *self.betas, self.eps, self.weight_decay, self.params.n_decayed, scale)


def global_norm(grads, ops=None):
    """Euclidean norm of all gradients together, summed in float64 in a fixed order: the same on every run."""
    return math.sqrt((ops.sum_squares if ops else sum_squares)(grads.flat))


def clip_scale(norm, max_norm):
    """The factor that brings a gradient of this norm down to max_norm; 1 where it is short enough or max_norm is 0."""
    return max_norm / norm if max_norm and norm > max_norm else 1.0


def clip_grad_norm(grads, max_norm):
    """Scale grads in place so that their global norm is at most max_norm; returns the norm before.

    Raises ValueError for a norm that is not finite or a negative max_norm. Source: Pascanu et al. 2013, arXiv 1211.5063.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be at least 0: got {max_norm}")
    norm = global_norm(grads)
    if not math.isfinite(norm):
        raise ValueError(f"grads must be finite: their global norm is {norm}")
    grads.flat *= clip_scale(norm, max_norm)
    return norm


def cosine_schedule(step, warmup, steps, lr, min_lr):
    """Learning rate of step 0, 1, ...: linear up to lr over `warmup` steps, then half a cosine down to min_lr at `steps`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
