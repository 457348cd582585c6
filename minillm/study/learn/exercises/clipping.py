"""Gradient clipping by the global norm.

One bad batch can give a gradient a hundred times the usual one, and the step it causes undoes an hour of training.
Clipping bounds the length of the step but keeps its direction: all gradients of the model, seen as one long vector,
are multiplied by one factor.

    norm   = sqrt of the sum of the squares of all numbers of all gradients
    factor = what brings norm down to max_norm; 1 where it is not longer than that

Write clip_gradients(grads, max_norm). grads is a list of arrays of any shapes, in float32 or float64; the answer is a
list of new arrays of the same shapes and dtypes, and the norm before clipping, a float, which training logs. max_norm
of 0 means that nothing is clipped. Mind what float32 can hold: 1e25 is a float32, its square is none.

Source: Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063, algorithm 1.
"""
import math

import numpy as np

from ....train.optim import clip_scale
from ..exercise import Exercise
from ..rules import by_cases


def clip_gradients(grads, max_norm):
    """grads, a list of arrays -> (list of clipped arrays, norm before clipping)."""
    norm = math.sqrt(sum(float(np.sum(np.square(grad.astype(np.float64)))) for grad in grads))
    factor = max_norm / norm if max_norm and norm > max_norm else 1.0
    return [grad * factor for grad in grads], norm


def _cases(yours):
    """Norms that are known, then one trap after the other."""
    one, two = np.array([3.0, 0.0]), np.array([[0.0], [-4.0]])
    many = [one, two, np.full((2, 3), 2.0)]

    def clip(grads, limit):
        return yours.clip_gradients([grad.copy() for grad in grads], limit)

    def clipped(grads, norm, limit):
        return [grad * clip_scale(norm, limit) for grad in grads]

    yield "the norm of [3, 0] and [0, -4] together is 5: one norm of all gradients, not one each", \
        clip([one, two], 100.0)[1], 5.0
    yield "the norm returned must be the one before clipping", clip(many, 0.5)[1], 7.0
    yield "all gradients must be multiplied by one factor, max_norm / norm, which keeps the direction", \
        clip(many, 0.7)[0], clipped(many, 7.0, 0.7)
    yield "a gradient shorter than max_norm must stay as it is: clipping never makes it longer", \
        clip([one, two], 6.0)[0], [one, two]
    yield "max_norm = 0 means no clipping", clip([one, two], 0.0)[0], [one, two]
    yield "a gradient of zeros must stay zeros: there is no dividing by its norm", \
        clip([np.zeros(3)], 1.0), [[np.zeros(3)], 0.0]
    huge = [np.full(4, 1e25, np.float32), np.full(5, -1e25, np.float32)]
    yield "the squares of float32 overflow above 1.8e19: sum them in float64", clip(huge, 1.0)[1], \
        3 * float(np.float32(1e25))
    yield "float32 gradients must stay float32", clip([one.astype(np.float32)], 1.0)[0], \
        [np.array([1, 0], np.float32)], 1e-6
    given = [one.copy(), two.copy()]
    yours.clip_gradients(given, 1.0)
    yield "the gradients given must be left as they are: return new arrays", given, [one, two]


EXERCISE = Exercise(
    __file__, solve=("clip_gradients",), needs=("adamw",), checks=by_cases(_cases),
    hints=("The norm of several arrays is that of one long vector: add the sums of squares, then take one root.",
           "Convert each gradient to float64 before squaring: astype(np.float64).",
           "The factor is max_norm / norm, but only where norm > max_norm; elsewhere 1, which also settles norm = 0.",
           "A Python float as factor leaves a float32 array float32; an np.float64 would not."))
