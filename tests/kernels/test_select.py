"""The op table and `select`: names, errors, an immutable result, composites made of the chosen parts."""
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from cases import BACKENDS, outputs, sample
from tolerances import assert_close

from minillm.kernels import select as registry
from minillm.kernels.select import OPS, choices, functions, select


@pytest.mark.parametrize("backend", ["auto", "numpy", *BACKENDS[1:]])
def test_select_fills_every_op(backend):
    ops = select(backend)
    assert set(ops.backends) == set(OPS)
    assert all(callable(getattr(ops, name)) for spec in OPS.values() for name in functions(spec))


def test_numpy_is_the_reference_everywhere():
    ops = select("numpy")
    assert set(ops.backends.values()) == {"numpy"}
    assert ops.layernorm_forward is registry.reference.layernorm_forward


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ extension is not built")
def test_cpu_uses_its_kernels_and_numpy_for_the_rest():
    ops = select("cpu")
    for op in OPS:
        assert ops.backends[op] == ("cpu" if "cpu" in choices(op) else "numpy"), op
    assert ops.layernorm_forward is not registry.reference.layernorm_forward


@pytest.mark.parametrize("op, choice", [(op, choice) for op in OPS for choice in choices(op)])
def test_one_op_can_be_chosen(op, choice):
    ops = select({op: choice})
    assert ops.backends[op] == choice
    assert {other: ops.backends[other] for other in OPS if other != op} == \
           {other: select("auto").backends[other] for other in OPS if other != op}


@pytest.mark.parametrize("choice, words", [
    ("gpu", "unknown backend 'gpu'"), ("", "unknown backend ''"), ({"gelu": "metal"}, "unknown backend 'metal'"),
    ({"softplus": "numpy"}, "unknown op 'softplus'"), ({"gelu": "numpy/7_magic"}, "no variant 'numpy/7_magic'"),
])
def test_unknown_names_are_errors(choice, words):
    with pytest.raises(ValueError, match=words):
        select(choice)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ extension is not built")
def test_unknown_variant_of_a_built_backend():
    with pytest.raises(ValueError, match="layernorm has no variant 'cpu/9_magic'"):
        select({"layernorm": "cpu/9_magic"})


@pytest.mark.parametrize("choice", ["cuda", "cudasim", {"attention": "cuda/3_mma"}], ids=str)
def test_a_backend_that_is_not_built_says_how(choice, monkeypatch):
    monkeypatch.setattr(registry, "cuda", lambda backend: None)
    with pytest.raises(ImportError, match="cuda.* backend is not built.*pip install"):
        select(choice)


def test_a_backend_that_cannot_run_here_says_why(monkeypatch):
    """Built, but no driver or no GPU."""
    monkeypatch.setattr(registry, "cuda", lambda backend: SimpleNamespace(driver_problem=lambda: "no NVIDIA driver"))
    with pytest.raises(ImportError, match="cuda backend is built but cannot run here: no NVIDIA driver"):
        select("cuda")
    assert not any(choice.startswith("cuda/") for choice in choices("attention"))


def test_cpu_without_the_extension_is_an_import_error(monkeypatch):
    """Asked for by name it is an error; "auto" falls to NumPy."""
    monkeypatch.setattr(registry, "_cpp", None)
    with pytest.raises(ImportError, match="cpu backend is not built.*pip install"):
        select("cpu")
    assert set(select("auto").backends.values()) == {"numpy"}
    assert not [choice for choice in choices("layernorm") if choice.startswith("cpu")]


@pytest.mark.parametrize("kernels, flags, has", [
    ("avx512", {"avx512_bf16"}, True), ("amx", {"avx512_bf16"}, True), ("avx512", {"avx512f"}, False),
    ("avx2", {"avx512_bf16"}, False), ("scalar", {"avx512_bf16"}, False)])
def test_bf16_needs_the_instruction_and_kernels_that_use_it(kernels, flags, has, monkeypatch):
    monkeypatch.setattr(registry, "_cpp", SimpleNamespace(__name__=f"minillm._cpp.{kernels}"))
    monkeypatch.setattr(registry, "cpu_flags", lambda: flags)
    assert registry.multiplies_in_bf16() == has
    monkeypatch.setattr(registry, "_cpp", None)
    assert not registry.multiplies_in_bf16()


def test_the_result_cannot_be_changed():
    ops = select("numpy")
    with pytest.raises(AttributeError):
        ops.gelu_forward = None
    with pytest.raises(AttributeError):
        del ops.gelu_forward


def test_the_record_of_backends_cannot_be_changed():
    with pytest.raises(TypeError):
        select("numpy").backends["gelu"] = "cpu"


@pytest.mark.parametrize("op, part", [("mlp", "gelu"), ("mlp", "linear"), ("linear_cross_entropy", "cross_entropy")])
def test_composites_use_the_chosen_parts(monkeypatch, op, part):
    """Count the calls of a marked implementation of the part."""
    calls = []
    original = registry.implementation

    def marked(spec, choice):
        found, source = original(spec, choice)
        if spec.name != part:
            return found, source
        return [lambda *args, f=f, **kw: (calls.append(f.__name__), f(*args, **kw))[1] for f in found], source

    monkeypatch.setattr(registry, "implementation", marked)
    ops, args = select("numpy"), sample(op, "float64")
    forward, backward = (getattr(ops, name) for name in functions(OPS[op]))
    out, cache = forward(**args)
    backward(np.ones_like(out), cache)
    assert {f"{part}_forward", f"{part}_backward"} <= set(calls)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("op", [op for op, spec in OPS.items() if spec.composite and spec.kind == "pair"])
def test_composites_of_kernels_agree_with_the_reference(op, backend):
    args, ops = sample(op, "float64"), select(backend)
    forward, gradient = (getattr(ops, name) for name in functions(OPS[op]))
    want = outputs(op, "numpy", args)
    out, cache = forward(**args)
    assert_close("out", out, want["out"], "reference float64")
    dout = np.random.default_rng(1).standard_normal(out.shape)
    for name, got in zip(list(want)[1:], gradient(dout, cache), strict=True):
        assert_close(name, got, want[name], "reference float64")


def test_reference_ops_travel_to_other_processes():
    """Data-parallel workers receive ops by pickling."""
    ops = pickle.loads(pickle.dumps(select("numpy").gelu_forward))
    assert ops is registry.reference.gelu_forward


@pytest.mark.skipif("cpu" not in choices("attention"), reason="kernels are not built")
@pytest.mark.parametrize("value", [2.0, np.float32(2), np.float64(2), np.array(2.0), np.True_, "2", None], ids=repr)
def test_where_an_integer_is_asked_no_float_will_do(value):
    """NumPy's float32 could be read as one, were it left to the compiler's conversions."""
    attention, dropout = select("cpu").attention_forward, select("cpu").dropout_forward
    x = np.zeros((1, 4, 12), "float32")
    with pytest.raises(TypeError, match="n_head cannot be of type"):
        attention(x, value)
    with pytest.raises((TypeError, ValueError)):
        dropout(x, 0.5, (0, 1, value))
    for right in (2, np.int64(2), np.uint8(2)):
        attention(x, right), dropout(x, 0.5, (0, 1, right))
