"""The backward of a linear layer.

From the gradient of its output to those of x, weight and bias.

    out[n, j] = sum over i of x[n, i] * weight[i, j] + bias[j]

Given is dout, the gradient dL/dout of a scalar loss L that you never see. By the chain rule, the gradient of any input
is the sum over all outputs that it moves, of dout times the slope. x may have more leading axes, say (B, T, I); to the
weight they are just more rows.
"""
from ..exercise import Exercise


def linear_forward(x, weight, bias):
    """x (..., I), weight (I, J), bias (J,) -> out (..., J), cache."""
    return x @ weight + bias, (x, weight)


def linear_backward(dout, cache):
    """dout (..., J), cache -> dx (..., I), dweight (I, J), dbias (J,)."""
    x, weight = cache
    rows_of_x = x.reshape(-1, x.shape[-1])                    # (N, I)
    rows_of_dout = dout.reshape(-1, dout.shape[-1])           # (N, J)
    dx = dout @ weight.T                                      # (..., J) @ (J, I) -> (..., I)
    dweight = rows_of_x.T @ rows_of_dout                      # (I, N) @ (N, J) -> (I, J)
    dbias = rows_of_dout.sum(axis=0)                          # (N, J) -> (J,)
    return dx, dweight, dbias


EXERCISE = Exercise(
    __file__, op="linear", solve=("linear_backward",), needs=("linear_forward",),
    hints=(
        "Nudge x[n, i]: every out[n, j] of that row moves, by weight[i, j] each. So dx[n, i] = sum over j of dout[n, "
        "j] * weight[i, j].",
        "A sum over the last axis of both factors is a matmul with a transpose: dx = dout @ weight.T.",
        "Nudge weight[i, j]: out[n, j] of every row n moves, by x[n, i] each. So dweight[i, j] = sum over n of x[n, "
        "i] * dout[n, j].",
        "A sum over rows: flatten the leading axes, x.reshape(-1, I) and dout.reshape(-1, J), and dweight = x.T @ "
        "dout.",
        "Nudge bias[j]: out[n, j] of every row moves by 1. So dbias[j] = sum over n of dout[n, j].",
    ),
    mistakes=(
        ("rows_of_dout.sum(axis=0)", "rows_of_dout.mean(axis=0)",
         "is the mean over rows: each row moves by 1, so it is their sum"),
        ("rows_of_x.T @ rows_of_dout", "rows_of_x.T @ rows_of_dout / len(rows_of_x)",
         "is divided by the number of rows: if the loss is a mean, that is in dout already"),
        ("rows_of_x.T @ rows_of_dout ", "x[0].T @ dout[0] ",
         "counts the first sequence alone: it is a sum over all rows"),
        ("rows_of_x.T @ rows_of_dout ", "x[-1].T @ dout[-1] ",
         "counts the last sequence alone: it is a sum over all rows"),
        ("rows_of_x.T @ rows_of_dout ", "(0 * rows_of_x + 1).T @ rows_of_dout ",
         "lacks x: out moves by x where the weight moves by 1"),
    ))
