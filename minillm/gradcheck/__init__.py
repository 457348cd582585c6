"""Gradient checking: a hand-written backward against numerical derivatives, which need no derivation.

The output is an array, so pick a random r of its shape and check the scalar L = sum(out * r); `backward(r, cache)`
claims to give dL/dinput, a vector-Jacobian product. For one element x of an input, two ways to measure it:

    central:   dL/dx ~ (L(x + h) - L(x - h)) / 2h    truncation error h^2, rounding error eps/h
    complex:   dL/dx ~ Im(L(x + i h)) / h            no subtraction, so h = 1e-30 and an error of rounding alone;
                                                     the forward must accept complex128 (Squire & Trapp 1998)

Works on any pair of functions; NumPy only. In reading order:

    rows.py          what is reported: a Row for each input
    measure.py       a derivative along a line with its error bar, which is the tolerance; kinks
    search.py        all elements, or some and random directions, with the probability of missing an error
    contract.py      what a pair must keep besides: nothing written, nothing remembered, linear in dout
    diagnosis.py     what is wrong, in a sentence
    second_order.py  the derivative of a backward is symmetric; Jacobians
    check.py         gradcheck, check_model, assert_gradients
    curve.py         the error against the step, as numbers
"""
from .check import assert_gradients, check_model, gradcheck
from .curve import error_curve
from .rows import ContractError, GradcheckError, Row, as_dict
from .second_order import jacobian

__all__ = ["gradcheck", "assert_gradients", "check_model", "error_curve", "jacobian", "GradcheckError",
           "ContractError", "Row", "as_dict"]
