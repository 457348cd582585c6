"""Every compiled op at sizes beside each border at which a kernel cuts its work: chunks, vectors, blocks, tiles.

A row that is dropped between two chunks, or a tail that only the first block has, shows at no size below the border.
Borders are powers of two, and the depths of the GEMM's blocks. The reference is NumPy in float64 on the same numbers.
"""
from functools import lru_cache
from inspect import signature

import numpy as np
import pytest
from cases import cases, each, float_names, named_grads, named_outs, normal_like, pair, precision, sample
from tolerances import assert_close

from minillm.ops import linear_cross_entropy_backward, linear_cross_entropy_forward, sum_squares
from minillm.ops.losses import linear_cross_entropy
from minillm.ops.table import OPS, REFERENCE, Dims

BESIDE = [border + step for border in (8, 16, 32, 64, 128, 192, 256, 384, 512, 1024) for step in (-1, 0, 1)]
SIZES = {"rows": [Dims(1, n, 6, 2, 5) for n in BESIDE] + [Dims(3, 683, 6, 2, 5), Dims(17, 241, 6, 2, 5)],
         "columns": [Dims(1, 3, n, 1, 5) for n in BESIDE if n < 400],
         "heads": [Dims(2, 3, 3 * n, n, 5) for n in (1, 15, 17, 33)],
         "vocabulary": [Dims(1, 3, 6, 2, n) for n in (*BESIDE, 2047, 2049, 4097)]}
FLAT = [1, 7, 8, 9, *(n * 2 ** k + step for k in (13, 14, 16) for n in (1, 2, 3) for step in (-1, 0, 1, 5))]
on_cpu = [case for case in cases(("pair", "decode"), compiled_only=True) if case.values[1].startswith("cpu/") or
          case.values[1] == "cpu"]
every_flat = [case for case in cases(("update", "reduce"))
              if case.values[0] != "muon" and case.values[1] in ("numpy", "cpu")]


def widened(tree):
    """The same numbers in float64."""
    if isinstance(tree, np.ndarray):
        return tree.astype("float64") if tree.dtype.kind == "f" else tree
    return tuple(map(widened, tree)) if isinstance(tree, tuple) else tree


def results(op, backend, args, dout, into=None):
    forward, *backward = pair(op, backend)
    result = forward(**args)
    if not backward:
        return {"out": result}
    options = {} if into is None else {"into": into}
    return named_outs(result[0]) | named_grads(op, backward[0](dout, result[1], **options))


def outs_like(op, args):
    """Something of the shape and dtype of the op's output: what dout is."""
    out = pair(op, "numpy")[0](**args)
    rng = np.random.default_rng(1)
    return each(lambda a: normal_like(a, rng), out[0]) if OPS[op].kind == "pair" else None


@lru_cache(maxsize=256)                             # the dtypes and kernels of an op share it
def problem(op, dims):
    """A sample whose sums over columns do not grow with their number, dout, and what float64 makes of them. Its numbers
    are float32's."""
    args = {name: (value / dims.C ** 0.25).astype("float32") if name in float_names(args) else value
            for args in [sample(op, "float32", dims)] for name, value in args.items()}
    args, dout = {name: widened(value) for name, value in args.items()}, widened(outs_like(op, args))
    return args, dout, results(op, "numpy", args, dout)


def cast(tree, dtype):
    """A copy with floats of this type."""
    if isinstance(tree, np.ndarray):
        return tree.astype(dtype if tree.dtype.kind == "f" else tree.dtype)
    return tuple(cast(part, dtype) for part in tree) if isinstance(tree, tuple) else tree


@pytest.mark.parametrize("axis", SIZES)
@pytest.mark.parametrize("op, backend, dtype", on_cpu)
def test_sizes_beside_every_border(op, backend, dtype, axis):
    for dims in (d for d in SIZES[axis] if d.T < 400 or op != "attention"):          # its reference is quadratic
        args, dout, want = problem(op, dims)
        args, dout = {name: cast(value, dtype) for name, value in args.items()}, cast(dout, dtype)
        got = results(op, backend, args, dout)
        for name, array in got.items():
            assert_close(f"{op} {name} at {dims}", array, want[name], f"reference {precision(backend, dtype)}")
        if takes_into(op):
            added_to(op, backend, args, dout, got, want, f"reference {precision(backend, dtype)}")


def takes_into(op):
    return OPS[op].kind == "pair" and "into" in signature(REFERENCE[f"{op}_backward"]).parameters


def added_to(op, backend, args, dout, fresh, want, tolerance):
    """The gradients of parameters once more, added to ones: what a chunk or a block writes anew is lost."""
    parameters = [name for name in fresh if name[1:] not in ("x", "y", "qkv", "logits") and not name.startswith("out")]
    into = tuple(np.ones_like(fresh[name]) for name in parameters)
    results(op, backend, args, dout, into)
    for name, array in zip(parameters, into):
        assert_close(f"{op} {name} += at {array.shape}", array, want[name] + 1, tolerance)


@pytest.mark.parametrize("op, backend, dtype", every_flat)
def test_flat_buffers_beside_every_border(op, backend, dtype):
    """Updates, compared with NumPy in float64; and sums, of whole numbers, which are exact."""
    function, = pair(op, backend)
    whole = sample(op, dtype, Dims(C=129))
    for n in FLAT:
        if OPS[op].kind == "reduce":
            x = np.random.default_rng(n).integers(-9, 10, n).astype(dtype)
            assert function(x) == (x.astype("int64") ** 2).sum(), n
            assert function(np.ones(n, dtype)) == n
            continue
        for n_decayed in (0, n // 3, n - 1, n):
            args = {name: value[:n].copy() if isinstance(value, np.ndarray) else value
                    for name, value in whole.items()} | {"n_decayed": n_decayed}
            want = {name: widened(value) for name, value in args.items()}
            function(**args)
            pair(op, "numpy")[0](**want)
            for name in ("w", "m", "v"):
                assert_close(f"{name} of {n}, {n_decayed}", args[name], want[name], f"reference {dtype}")


@pytest.mark.parametrize("N", [255, 256, 257, 511, 512, 513, 1025])
def test_the_chunks_of_the_reference_leave_no_trace(monkeypatch, N):
    args = sample("linear_cross_entropy", "float64", Dims(1, N, 6, 2, 11))
    dout, runs = np.random.default_rng(1).standard_normal(N), []
    for chunk in (linear_cross_entropy.CHUNK, N):
        monkeypatch.setattr(linear_cross_entropy, "CHUNK", chunk)
        losses, cache = linear_cross_entropy_forward(**args)
        runs.append((losses, *linear_cross_entropy_backward(dout, cache)))
    for cut, whole in zip(*runs):
        assert_close("in chunks", cut, whole, "regrouped float64")


def test_the_pieces_of_the_reference_cover_all():
    assert sum_squares(np.ones(65541, "float32")) == 65541          # the tail of the second piece was dropped once


@pytest.mark.parametrize("dims", [Dims(B=0), Dims(T=0), Dims(V=0)], ids=["B", "T", "V"])
@pytest.mark.parametrize("op, backend, dtype", on_cpu)
def test_of_nothing_the_same_comes_out(op, backend, dtype, dims):
    """Zero gradients, untouched sums: what NumPy gives. Where it refuses a size, so does the kernel."""
    try:
        args = sample(op, dtype, dims)
        dout = outs_like(op, args)
        want = results(op, "numpy", args, dout)
    except ValueError as error:
        if "must" in str(error):                                    # else there is no such sample: no targets, say
            with pytest.raises(ValueError, match="must"):
                pair(op, backend)[0](**args)
        return
    fill_memory()
    for name, array in results(op, backend, args, dout).items():
        assert_close(f"{op} {name}", array, want[name], f"reference {precision(backend, dtype)}")
    if takes_into(op):
        added_to(op, backend, args, dout, want, want, f"reference {precision(backend, dtype)}")


def fill_memory():
    """Leave NaNs where the next results will lie, so that what a kernel does not write is seen."""
    for n in (8, 40, 80, 320, 1000):
        del [pair("gelu", "cpu")[0](np.full(n, np.nan, "float32")) for _ in range(9)][:]


@pytest.mark.parametrize("op, backend, dtype", [case for case in on_cpu
                                                if "targets" in sample(case.values[0], "float32")])
def test_every_token_may_be_the_target(op, backend, dtype):
    """Also the first and the last of each tile of the vocabulary: one row for each token."""
    args = problem(op, Dims(1, 1100, 4, 1, 1100))[0] | {"targets": np.arange(1100)}
    args = {name: cast(value, dtype) for name, value in args.items()}
    dout = outs_like(op, args)
    want = results(op, "numpy", {name: widened(value) for name, value in args.items()}, widened(dout))
    for name, array in results(op, backend, args, dout).items():
        assert_close(f"{op} {name}", array, want[name], f"reference {precision(backend, dtype)}")
