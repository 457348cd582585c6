"""AdamW: one step of the optimizer.

Plain gradient descent takes w - lr * g, and one lr must do for numbers whose gradients differ by orders of magnitude.
AdamW keeps two moving averages of every number: m of its gradient g and v of g^2, both 0 at the start. It moves by
their ratio, so that every number moves by about lr. With the step number t = 1, 2, ...:

    g    = scale * grad                               scale is gradient clipping, from the exercise after this one
    m    = beta1 * m + (1 - beta1) * g
    v    = beta2 * v + (1 - beta2) * g^2
    mhat = ?    vhat = ?                              m and v without the bias towards their start at 0
    w    = w - lr * weight_decay * w                  the first n_decayed numbers only: matrices, no biases
    w    = w - lr * mhat / (sqrt(vhat) + eps)

What mhat and vhat are, derive: if g were the same number in every step, mhat should be exactly g and vhat exactly g^2.
All arrays are (P,): w, grad, m, v. w, m and v are changed in place, grad is left as it is, nothing is returned.

Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
"""
import numpy as np

from ....kernels.select import choices, select
from ....ops.optimizer import adamw as op
from ....ops.table import OPS, Dims
from ..compare import difference, equal
from ..exercise import Exercise, Wrong
from ..rules import blame, by_cases


def adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, n_decayed=0, scale=1.0):
    """One step of AdamW, in place on w, m and v.

    w, grad, m, v (P,) of one dtype; step counts from 1; of w, the first n_decayed numbers decay.
    """
    g = scale * grad
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    mhat = m / (1 - beta1 ** step)
    vhat = v / (1 - beta2 ** step)
    w[:n_decayed] -= lr * weight_decay * w[:n_decayed]
    w -= lr * mhat / (np.sqrt(vhat) + eps)


def _cases(yours):
    """Each moment alone, then each term of the update alone, then all together."""
    def after(function, name, **changes):
        rng = np.random.default_rng(5)
        args = {"w": rng.standard_normal(6), "grad": rng.standard_normal(6), "m": rng.standard_normal(6),
                "v": rng.random(6), "step": 3, "lr": 0.01, "beta1": 0.9, "beta2": 0.95} | changes
        args = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in args.items()}
        function(**args)
        return args[name]

    def case(rule, name, **changes):
        return rule, after(yours.adamw_update, name, **changes), after(op.adamw_update, name, **changes)

    zeros, g = np.zeros(6), np.array([2.0, -1e-3, 50.0, 0.5, -7.0, 1.0])
    yield case("m must become beta1 * m + (1 - beta1) * g, in place", "m")
    yield case("v must become beta2 * v + (1 - beta2) * g^2, in place: the mean of the squares", "v")
    yield case("scale must multiply the gradient before m is made of it", "m", scale=0.5)
    yield case("scale must multiply the gradient before v is made of its square", "v", scale=0.5)
    yield ("w must be changed in place (w -= ..., not w = w - ...): it is as it was before the step",
           not np.array_equal(after(yours.adamw_update, "w"), after(lambda **args: None, "w")))
    first = {"w": zeros, "m": zeros, "v": zeros, "grad": g, "step": 1, "eps": 0.0}
    moved, want = after(yours.adamw_update, "w", **first), -0.01 * np.sign(g)
    yield blame(moved, {
        "the sign is wrong: w must move against the gradient": -want, "the step must be multiplied by lr": 100 * want,
        "mhat must be divided by the root of vhat, not by vhat": -0.01 / g,
        "after the first step mhat must be g: the bias correction of m is missing": 0.1 * want,
        "after the first step vhat must be g^2: the bias correction of v is missing": want / 0.05 ** 0.5},
        "after the first step mhat is g and vhat is g^2, so w moves by lr against the sign of g: the bias correction "
        "of m and v is missing or wrong"), moved, want
    yield case("the bias correction must fade as steps go on: divide by 1 - beta^step", "w",
               **first | {"step": 40, "m": g, "v": g * g})
    yield case("eps must be added to sqrt(vhat), after the root and the bias correction", "w",
               **first | {"eps": 0.3, "step": 2})
    still = {"m": zeros, "v": zeros, "grad": zeros, "weight_decay": 0.1}
    yield case("with a gradient of zeros and no decay w must stay as it is", "w", **still | {"weight_decay": 0.0})
    yield case("decay must act on w itself, not through the gradient: m and v know nothing of it", "m",
               weight_decay=0.1, n_decayed=6)
    yield case("decay must take lr * weight_decay * w off", "w", **still, n_decayed=6)
    yield case("only the first n_decayed numbers of w must decay", "w", **still, n_decayed=2)
    yield case("decay must be taken of w as it was before the step", "w", weight_decay=5.0, n_decayed=6)
    yield case("grad must be left as it is", "grad", scale=0.5)
    single = {name: value.astype(np.float32) for name, value in first.items() if isinstance(value, np.ndarray)}
    yield case("float32 arrays must take a step", "w", **first | single)[:3] + (1e-5,)


def _kernel(yours, rng):
    """In float32 beside the compiled update."""
    if "cpu" not in choices("adamw", "float32"):
        return "passed over: no compiled kernel of this op here"
    mine, theirs = (OPS["adamw"].sample(np.random.default_rng(1), "float32", Dims()) for _ in range(2))
    yours.adamw_update(**mine)
    select({"adamw": "cpu"}).adamw_update(*theirs.values())
    for name in ("w", "m", "v"):
        if not equal(mine[name], theirs[name], 1e-5):
            raise Wrong(f"in float32 {difference(name, mine[name], theirs[name], 1e-5)}, says the C++ kernel")
    return "float32 results agree with minillm's kernel"


EXERCISE = Exercise(
    __file__, solve=("adamw_update",), needs=(), checks=by_cases(_cases, in_place=True, returns=False, kernel=_kernel),
    hints=("Let g be the same in every step. Write m after one, two, three steps, from m = 0, as a multiple of g.",
           "m after t steps is (1 - beta1)(1 + beta1 + ... + beta1^(t-1)) g: a geometric series.",
           "Its sum is (1 - beta1^t) g, so mhat = m / (1 - beta1^t); and with g^2 in place of g, vhat = v / "
           "(1 - beta2^t).",
           "In place means w[:] = ... or w -= ...; `w = w - ...` makes another array that nobody sees.",
           "Decay first, on w[:n_decayed], then the step; the other way round decays the step, too."))
