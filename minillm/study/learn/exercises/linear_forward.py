"""A linear layer: a matmul of the rows of x with a weight, plus a bias.

    out[n, j] = sum over i of x[n, i] * weight[i, j] + bias[j]

x has any number of leading axes, say (B, T, I): they are just more rows, and out keeps them. weight is (I, J) and bias
(J,). The dtype of x is the dtype of out.
"""
from ..exercise import Exercise


def linear_forward(x, weight, bias):
    """x (..., I), weight (I, J), bias (J,) -> out (..., J), cache: the pair (x, weight), which the backward needs."""
    out = x @ weight + bias
    return out, (x, weight)


EXERCISE = Exercise(
    __file__, op="linear", solve=("linear_forward",),
    hints=(
        "For one row, out[j] is the dot product of that row with column j of the weight.",
        "All dot products of rows of A with columns of B are one matmul, A @ B; NumPy's @ takes leading axes of x as "
        "they are.",
        "The bias (J,) is added to each row: broadcasting does so by itself, since it aligns last axes.",
        "out = x @ weight + bias, and return out, (x, weight).",
    ),
    mistakes=(
        ("x @ weight + bias", "x @ weight", "the bias is not added"),
        ("x @ weight + bias", "x @ weight - bias", "the bias is taken off instead of added"),
        ("x @ weight + bias", "x @ weight * bias", "the bias is multiplied instead of added"),
        ("x @ weight + bias", "x @ (weight + bias)", "the bias is added to the weight: it belongs to the product"),
    ))
