"""The residual connection, forward and backward.

What a layer gives is added to what it was given.

    out = x + y

Short, and the reason why deep networks train at all: look at what reaches x. Results are fresh arrays: `x += y` would
overwrite what an earlier layer may still hold in its cache.
"""
from ..exercise import Exercise


def residual_forward(x, y):
    """x (...), y of the same shape -> out (...), cache."""
    return x + y, ()


def residual_backward(dout, cache):
    """dout (...), cache -> dx (...), dy (...)."""
    return dout.copy(), dout.copy()


EXERCISE = Exercise(
    __file__, op="residual", solve=("residual_forward", "residual_backward"), needs=("linear_backward",),
    hints=(
        "Nudge x[i]: out[i] moves by just as much, whatever y is. The slope is 1.",
        "So dx = dout, and by symmetry dy = dout: both branches get all of the gradient, not half of it each.",
        "The backward needs nothing of the forward: the cache may be an empty tuple.",
    ),
    mistakes=(
        ("return dout.copy(), dout.copy()", "return dout / 2, dout / 2",
         "is half of dout: a sum does not divide the gradient, each branch gets all of it"),
        ("return x + y", "return x - y", "y is taken off instead of added"),
        ("return x + y", "return x", "y is left out"),
        ("return x + y", "return (x + y) / 2", "it is the mean, where the sum is asked for"),
    ))
