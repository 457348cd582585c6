"""The cases that op tests are generated from: ops of the table x built implementations x dtype, and small tools."""
import numpy as np
import pytest
from tolerances import same_bits

from minillm.kernels.select import choices, select
from minillm.ops.table import OPS, Dims, functions

USUAL = Dims()
DTYPES = ("float32", "float64")
BACKENDS = ["numpy"] + (["cpu"] if "cpu" in choices("layernorm") else [])


def cases(kinds=("pair",), dtypes=DTYPES, compiled_only=False):
    """Parameters (op, backend, dtype) with ids such as layernorm-cpu-float64."""
    return [pytest.param(op, backend, dtype, id=f"{op}-{backend}-{dtype}")
            for op, spec in OPS.items() if spec.kind in kinds
            for backend in choices(op) if not (compiled_only and backend == "numpy")
            for dtype in dtypes if dtype in supported(op, backend)]


def every(op):
    """The same for one op, as a decorator of its tests."""
    return pytest.mark.parametrize("op, backend, dtype", [c for c in cases(("pair", "decode")) if c.values[0] == op])


def supported(op, backend):
    """The dtypes of an implementation."""
    return OPS[op].kernels.get(backend, DTYPES)


def precision(backend, dtype):
    """What tolerances.py calls it: the dtype of the arrays, or bfloat16 for kernels whose matmuls are in that."""
    return "bfloat16" if backend.endswith(("/bf16", "amx", "mma")) else dtype


def pair(op, backend):
    """The functions of one op in one backend: (forward, backward), or (function,)."""
    ops = select({op: backend, **{other: "numpy" for other in OPS if other != op}})
    return [getattr(ops, name) for name in functions(OPS[op])]


def sample(op, dtype, dims=USUAL, seed=0):
    """Fresh inputs of an op: {argument: value}."""
    return OPS[op].sample(np.random.default_rng(seed), dtype, dims)


def as_tuple(grads):
    return grads if isinstance(grads, tuple) else (grads,)


def outputs(op, backend, args, dout_seed=1):
    """{name: array} of everything a pair or a decode op returns: "out" (or "out0" and "out1", where there are two) and
    "d<argument>" for each gradient."""
    forward, *backward = pair(op, backend)
    result = forward(**args)
    if OPS[op].kind == "decode":
        return {"out": result}
    out, cache = result
    rng = np.random.default_rng(dout_seed)
    return named_outs(out) | named_grads(op, backward[0](each(lambda a: normal_like(a, rng), out), cache))


def named_outs(out):
    return {f"out{i}": part for i, part in enumerate(out)} if isinstance(out, tuple) else {"out": out}


def normal_like(array, rng):
    return rng.standard_normal(array.shape).astype(array.dtype)


def each(f, *outs):
    """f of an output, or of each where an op has a tuple of them."""
    return tuple(map(f, *outs)) if isinstance(outs[0], tuple) else f(*outs)


def one_changed(out, change):
    """The output with `change` made to it; for a tuple, tuples in which one of them is changed, one after the other."""
    if not isinstance(out, tuple):
        return [change(out)]
    return [(*out[:i], change(part), *out[i + 1:]) for i, part in enumerate(out)]


def named_grads(op, grads):
    """{"dx": ..., "dweight": ...} in the order of the op's differentiable arguments."""
    return dict(zip((f"d{name}" for name in OPS[op].differentiable), as_tuple(grads), strict=True))


def arrays(tree):
    """Every array inside nested tuples, lists and dicts."""
    if isinstance(tree, np.ndarray):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [array for item in tree for array in arrays(item)] if isinstance(tree, (tuple, list)) else []


def freeze(tree):
    """Make every array read-only, so that NumPy itself objects to a write; returns copies to compare afterwards."""
    for array in arrays(tree):
        array.flags.writeable = False
    return [array.copy() for array in arrays(tree)]


def unchanged(tree, copies):
    """Bitwise, since a kernel may write past NumPy's read-only flag."""
    return all(same_bits(array, copy) for array, copy in zip(arrays(tree), copies, strict=True))


def strided(array):
    """The same numbers with gaps between them: not contiguous."""
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def float_names(args):
    return [name for name, value in args.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
