"""The output head: logits over the vocabulary, by the token embedding itself (tied weights).

    logits = x @ wte.T            (..., C) @ (C, V) -> (..., V)

Forward only, for decoding; in training the head and the loss are one op, linear_cross_entropy, which also has the
gradients. The weight is wte, (V, C): GPT-2 ties the two (Press & Wolf 2017, arXiv 1608.05859).
"""
from .checks import check_dtype, check_rows, check_shape
from .spec import CPU, Spec, normals, on_gpu, wrong


def head(x, wte):
    """Logits of each token: x (..., C), wte (V, C) -> (..., V). Raises ValueError for shapes or dtypes that differ."""
    check_rows("x", x)
    check_shape("wte", wte, (None, x.shape[-1]))
    check_dtype("wte", wte, x.dtype)
    return x @ wte.T


SPEC = Spec(
    "head", kind="decode", differentiable=(), bad=wrong("wte", "narrower", "other_dtype", "flatter"),
    kernels=CPU | on_gpu(),
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), wte=(d.V, d.C)),
    flops=lambda d: (2 * d.B * d.T * d.C * d.V, 0),
    c=("out[B,T,V] <- x[B,T,C] wte[V,C]; B T C V",))
