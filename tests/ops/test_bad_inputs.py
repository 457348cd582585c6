"""Whatever is handed to an op of the table: a result, or one error that names an argument; never a crash.

Each op has a list of wrong inputs of its own. Then every array argument of every op in every backend is changed in
every way of CHANGES, most of them not foreseen by anybody. Caches: test_caches.py.
"""
import re
import warnings

import numpy as np
import pytest
from cases import cases, each, float_names, one_changed, outputs, pair, sample, strided
from tolerances import assert_close, assert_same_bits

from minillm.kernels.select import choices
from minillm.ops.table import OPS, Dims

CHANGES = {
    "a list": lambda a: a.tolist(), "None": lambda a: None, "a number": lambda a: 3.5,
    "no axis": lambda a: np.array(a.flat[0]), "no rows": lambda a: a[:0].copy(),
    "empty rows": lambda a: a[..., :0].copy(),
    "nothing": lambda a: a.reshape(-1)[:0], "one more axis": lambda a: a[None].copy(),
    "columns": lambda a: a[..., None].copy(),
    "flat": lambda a: a.reshape(-1), "shorter": lambda a: a[:-1].copy(), "twice": lambda a: np.concatenate([a, a]),
    "narrower": lambda a: np.ascontiguousarray(a[..., :-1]), "wider": lambda a: np.concatenate([a, a], -1),
    "gaps": strided, "backwards": lambda a: a[::-1], "Fortran": np.asfortranarray,
    "one number for all": lambda a: np.broadcast_to(a.flat[0], a.shape),
    "between addresses": lambda a: np.frombuffer(bytearray(1) + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "other bytes first": lambda a: a.astype(a.dtype.newbyteorder()),
    **{dtype: lambda a, dtype=dtype: a.astype(dtype) for dtype in (
        "float16", "float32", "float64", "longdouble", "complex64", "int8", "int64", "uint16", "bool", "object",
        "str")},
    "huge": lambda a: np.full_like(a, np.finfo(a.dtype).max if a.dtype.kind == "f" else np.iinfo(a.dtype).max),
    "lowest": lambda a: np.full_like(a, -np.inf if a.dtype.kind == "f" else np.iinfo(a.dtype).min),
}
NO_ARRAYS = ("a list", "None", "a number")
EMPTY = [Dims(B=0), Dims(T=0), Dims(C=0), Dims(B=0, T=0, C=0, V=0)]
bad_rows = [pytest.param(*case.values, row, id=f"{case.id}-{row[0]}")
            for case in cases(kinds=("pair", "decode", "update")) for row in OPS[case.values[0]].bad]
every_pair = pytest.mark.parametrize("op, backend, dtype", cases())
every_op = pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode", "reduce"), dtypes=["float32"]))
cpu_only = pytest.mark.skipif("cpu" not in choices("attention"), reason="no kernels are built")


@pytest.mark.parametrize("op, backend, dtype, row", bad_rows)
def test_bad_input_is_named(op, backend, dtype, row):
    _, argument, change, words = row
    args = sample(op, dtype)
    args[argument] = change(args[argument])
    with pytest.raises(ValueError, match=words):
        pair(op, backend)[0](**args)


@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode", "update", "reduce")))
def test_every_float_array_has_one_dtype_and_its_own_shape(op, backend, dtype):
    """The first array of floats decides the dtype and cannot be integers; all others must have it. And no array but the
    first may have an axis more."""
    function, (first, *others) = pair(op, backend)[0], float_names(sample(op, dtype))
    wrong = [(first, CHANGES["int64"]), *((name, CHANGES["float64" if dtype == "float32" else "float32"])
                                          for name in others)]
    wrong += [(name, CHANGES["one more axis"]) for name in others]
    for name, change in wrong:
        args = sample(op, dtype)
        with pytest.raises(ValueError, match=rf"\b({name}|{first})\b"):
            function(**args | {name: change(args[name])})


@every_pair
def test_bad_dout_is_named(op, backend, dtype):
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    for change in (lambda a: a[:-1].copy(), lambda a: a[..., None].copy(), lambda a: a.reshape(-1)[:-1].copy()):
        for dout in one_changed(out, change):
            with pytest.raises(ValueError, match="d(out|sum) must have shape"):
                backward(dout, cache)


@every_pair
def test_dout_of_another_dtype_is_refused(op, backend, dtype):
    """Mixed dtypes raise: a float64 dout would silently promote a float32 backward."""
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    other = "float64" if dtype == "float32" else "float32"
    for dout in one_changed(out, lambda a: a.astype(other)):
        with pytest.raises(ValueError, match="dout|dsum"):
            backward(dout, cache)


@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "update"), compiled_only=True))
def test_kernel_refuses_gaps(op, backend, dtype):
    """Compiled kernels take contiguous arrays only; decode ops are exempt, since they read views of the cache."""
    args = sample(op, dtype)
    functions = pair(op, backend)
    for name in float_names(args):
        with pytest.raises(ValueError, match=name):
            functions[0](**{**args, name: strided(args[name])})
    if OPS[op].kind == "pair":
        out, cache = functions[0](**args)
        for dout in one_changed(out, strided):
            with pytest.raises(ValueError, match="dout|dsum"):
                functions[1](dout, cache)


@pytest.mark.parametrize("op, backend, dtype", [c for c in cases(kinds=("pair", "decode")) if c.values[1] == "numpy"])
def test_reference_accepts_gaps(op, backend, dtype):
    args = sample(op, dtype)
    loose = {name: strided(value) if name in float_names(args) else value for name, value in args.items()}
    want = outputs(op, backend, args)
    for name, got in outputs(op, backend, loose).items():
        assert_close(name, got, want[name], f"regrouped {dtype}")


def run(functions, args):
    """Forward, and backward where there is one."""
    result = functions[0](**args)
    if len(functions) == 2:
        functions[1](each(np.ones_like, result[0]), result[1])


def refused(names, function, *also):
    """Call it: did it raise? The error must be a ValueError, or one of `also`, that names one of these."""
    try:
        with np.errstate(all="ignore"):
            function()
    except (ValueError, *also) as error:
        assert re.search(rf"\b({'|'.join(names)})\b", str(error)), str(error)
        return True
    return False


@every_op
def test_any_array(op, backend, dtype):
    functions, args = pair(op, backend), sample(op, dtype)
    compiled = backend != "numpy"
    for name in [name for name, value in args.items() if isinstance(value, np.ndarray)]:
        for label, change in CHANGES.items():
            also = (TypeError,) if compiled and label in NO_ARRAYS else ()      # the bindings' own
            changed = sample(op, dtype)
            changed[name] = change(changed[name])
            error = refused([*args, "dout"], lambda args=changed: run(functions, args), *also)
            may_be_none = label == "None" and (op, name) in (("projection", "bias"), ("lora_projection", "bias"))
            assert error or may_be_none or label not in (*NO_ARRAYS, "object", "str"), (name, label)


@pytest.mark.parametrize("dims", EMPTY, ids=["B", "T", "C", "all"])
@every_op
def test_empty(op, backend, dtype, dims):
    """No sequences or no tokens are no error: nothing in, nothing out. An empty axis that makes no sense is named."""
    args = sample(op, dtype, dims)
    error = refused(list(args), lambda: run(pair(op, backend), args))
    assert not error or dims not in EMPTY[:2] or op == "attention_decode"


@cpu_only
@pytest.mark.parametrize("op", ["linear", "attention", "mlp", "linear_cross_entropy"])
def test_the_cache_of_another_precision_is_refused(op):
    """bfloat16 kernels keep 16 bits a number: a float32 cache read as such would give a wrong gradient and no error."""
    for one, other in (("cpu", "cpu/bf16"), ("cpu/bf16", "cpu")):
        out, cache = pair(op, one)[0](**sample(op, "float32"))
        with pytest.raises(ValueError, match="must"):
            pair(op, other)[1](np.ones_like(out), cache)


@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode", "reduce"), dtypes=["float32"]))
def test_arrays_that_mean_something_else(op, backend, dtype):
    """A matrix multiplies otherwise, the mask of a masked array would be passed over."""
    args = sample(op, dtype)
    for name in [name for name, value in args.items() if isinstance(value, np.ndarray)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = [np.ma.masked_array(args[name]), *([np.asmatrix(args[name])] if args[name].ndim == 2 else [])]
        for array in wrong:
            with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
                pair(op, backend)[0](**args | {name: array})


@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "update"), dtypes=["float32"]))
def test_numbers_of_a_wrong_type_are_named(op, backend, dtype):
    args = sample(op, dtype)
    for name in [name for name, value in args.items() if not isinstance(value, np.ndarray)]:
        for value in (None, "text", (), 1j, [1.0], object()):
            with pytest.raises((ValueError, TypeError), match=rf"\b({name}|targets|block_size)\b"):
                pair(op, backend)[0](**args | {name: value})


@cpu_only
@pytest.mark.parametrize("op, name", [("embedding", "tokens"), ("cross_entropy", "targets"),
                                      ("linear_cross_entropy", "targets"), ("distillation_loss", "targets")])
def test_the_largest_unsigned_id_is_not_minus_one(op, name):
    args = sample(op, "float32")
    args[name] = np.full(args[name].shape, 2 ** 64 - 1, "uint64")
    with pytest.raises(ValueError, match=f"{name} must be in .*18446744073709551615"):
        pair(op, "cpu")[0](**args)


@cpu_only
def test_numbers_between_addresses():
    """Refused for floats; ids are copied, as are those of another integer dtype. The sanitizer says who reads them."""
    between, args = CHANGES["between addresses"], sample("linear", "float32")
    with pytest.raises(ValueError, match="weight must be aligned"):
        pair("linear", "cpu")[0](**args | {"weight": between(args["weight"])})
    forward, args = pair("embedding", "cpu")[0], sample("embedding", "float32")
    out, _ = forward(**args | {"tokens": between(args["tokens"])})
    assert_same_bits(out, forward(**args)[0])


@cpu_only
def test_positions_of_the_cache_are_checked():
    forward, backward = pair("embedding", "cpu")
    out, cache = forward(**sample("embedding", "float32"))
    for start in (-1, 10 ** 6, 2 ** 62):
        with pytest.raises(ValueError, match="block_size"):
            backward(out, (*cache[:3], start))


@pytest.mark.parametrize("backend", choices("attention"))
@pytest.mark.parametrize("n_head", [-1, 0, 5, 2 ** 31, 6148914691236517205, 2 ** 62], ids=str)
def test_any_number_of_heads(backend, n_head):
    """Three times 6148914691236517205 is -1 in 64 bits, which divides every width."""
    with pytest.raises(ValueError, match="n_head"):
        pair("attention", backend)[0](np.ones((1, 2, 24), "float32"), n_head)


@pytest.mark.parametrize("backend", choices("lora_linear"))
def test_lora_names_a_bad_key(backend):
    args = sample("lora_linear", "float32") | {"key": (1, 2)}
    with pytest.raises(ValueError, match="key"):
        pair("lora_linear", backend)[0](**args)
