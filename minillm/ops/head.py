"""The output head: a score for every token of the vocabulary, from the token embedding itself.

    logits = x @ wte.T            (..., C) @ (C, V) -> (..., V)

Forward only, for generating; in training the head and the loss are one op, linear_cross_entropy, which also has the
gradients. The weight is wte, (V, C): GPT-2 ties the two (Press & Wolf 2017, arXiv 1608.05859).
"""
from .checks import check_dtype, check_rows, check_shape


def head(x, wte):
    """x (..., C), wte (V, C) -> logits (..., V)."""
    check_rows("x", x)
    check_shape("wte", wte, (None, x.shape[-1]))
    check_dtype("wte", wte, x.dtype)
    return x @ wte.T
