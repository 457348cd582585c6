"""The op table: every op of minillm/ops has a SPEC, and what a SPEC says of its op is true."""
import ast
import dataclasses
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from cases import sample

import minillm.ops
from benchmarks.ops import output
from minillm.ops.table import FILES, OPS, REFERENCE, Dims, functions

TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in Path(minillm.ops.__file__).parent.rglob("*.py")}


def test_every_forward_belongs_to_a_spec_of_its_file():
    """The same for backwards, updates and all: what is exported is what the SPECs stand for."""
    found = {node.name: path.stem for path, tree in TREES.items() for node in tree.body
             if isinstance(node, ast.FunctionDef) and node.name.endswith(("_forward", "_backward", "_update"))
             and not node.name.startswith("torch_")}
    assert found == {name: op for op, spec in OPS.items() for name in functions(spec) if name != op}
    assert {name: getattr(minillm.ops, name) for name in minillm.ops.__all__} == REFERENCE


def test_an_op_its_file_and_its_spec_share_a_name():
    for op, module in FILES.items():
        assert op == OPS[op].name == module.__name__.rpartition(".")[2]


def test_the_table_is_consistent():
    """Every spec's samples match its signature and its own claims; every kernel is of a backend."""
    for name, spec in OPS.items():
        args = spec.sample(np.random.default_rng(0), "float32", Dims())
        assert name == spec.name and set(spec.differentiable) <= set(args)
        assert {kernel.partition("/")[0] for kernel in spec.kernels} <= {"cpu", "cuda", "cudasim"}
        assert all(argument in args for _, argument, _, _ in spec.bad) and len(spec.bad) >= 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            spec.name = "other"


@pytest.mark.parametrize("op", OPS)
def test_costs_are_positive_and_grow(op):
    spec, small, large = OPS[op], Dims(), Dims(B=4, T=10, C=16, NH=2, V=22)
    assert sum(spec.flops(large)) > sum(spec.flops(small)) and min(spec.flops(small)) >= 0
    (moved, back), (wide, _) = (spec.traffic(sample(op, dtype), output(spec, sample(op, dtype)))
                                for dtype in ("float32", "float64"))
    assert moved >= sum(a.nbytes for a in sample(op, "float32").values() if isinstance(a, np.ndarray))
    assert (back > 0) == (spec.kind == "pair")
    assert wide > moved


def test_traffic_by_hand():
    """At B=2, T=5, C=8, V=11 in float32: inputs and output; then inputs, dout, gradients. Of a gathered table only as
    many rows count as there are tokens; of two arguments with one gradient, one is read and one gradient written."""
    x, row, wte, wpe, tokens = 4 * 2 * 5 * 8, 4 * 8, 4 * 11 * 8, 4 * 8 * 8, 8 * 2 * 5
    expected = {"layernorm": (x + 2 * row + x, x + 2 * row + x + x + 2 * row),
                "residual_layernorm": (2 * x + 2 * row + 2 * x, x + 2 * row + 2 * x + x + 2 * row),
                "embedding": (tokens + x + wpe + x, tokens + x + wpe + x + wte + wpe)}
    for op, moved in expected.items():
        assert OPS[op].traffic(sample(op, "float32"), output(OPS[op], sample(op, "float32"))) == moved


def sizes(arguments, values):
    """The sizes that letters stand for, from arrays: x[B,T,3C] of shape (2, 5, 24) is B=2, T=5, C=8. A shape of one
    letter takes an array of any shape as a row."""
    found = {}
    for argument in arguments:
        value = np.asarray(values[argument.name])
        shape = value.shape if len(argument.shape) > 1 else (value.size,)
        for size, letters in zip(shape, argument.shape, strict=True):
            factor, letter = int("".join(filter(str.isdigit, letters)) or 1), letters.lstrip("0123456789")
            assert size == factor * (found.setdefault(letter, size // factor) if letter else 1), argument
    return found


@pytest.mark.parametrize("op", OPS)
def test_the_forwards_c_signature_fits(op):
    """It takes every array of the op, in the samples' shapes, and gives the output; its scalars hold every size."""
    spec, args = OPS[op], sample(op, "float32")
    forward = spec.signatures()[0]
    out = output(spec, args)
    outs = out if isinstance(out, tuple) else () if out is None else (out,)
    values = args | dict(zip([a.name for a in forward.results], outs))                  # what it caches comes after
    if op == "embedding":
        values["wpe"] = values["wpe"][:args["tokens"].shape[1]]                         # from the first position on
    assert "out" in values or spec.kind == "update"
    found = sizes([a for a in (*forward.results, *forward.inputs) if a.name in values], values)
    assert set(found) <= set(forward.scalars) <= set(args) | {"B", "T", "S", "C", "K", "NH", "HS", "OC", "R", "V", "N"}
    arrays = {name for name, value in args.items() if isinstance(value, (np.ndarray, tuple))}
    assert arrays == {a.name for a in forward.inputs} | {a.name for a in forward.results if spec.kind == "update"}


@pytest.mark.parametrize("op", [op for op, spec in OPS.items() if spec.kind == "pair"])
def test_the_backwards_c_signature_fits(op):
    """It is given dout, inputs and results of the forward; it returns a gradient for each differentiable argument, in
    order, and adds to those of parameters, as `into` does."""
    spec, (forward, backward) = OPS[op], OPS[op].signatures()
    assert [a.name for a in backward.results] == [f"d{name}" for name in spec.differentiable
                                                  if name not in spec.shared_gradient]
    takes_into = "into" in signature(REFERENCE[f"{op}_backward"]).parameters
    assert [a.added for a in backward.results] == [takes_into and a.name not in ("dx", "dy") for a in backward.results]
    known = {a.name: a.shape for a in (*forward.inputs, *forward.results)}
    known |= {f"d{name}": shape for name, shape in known.items()} | {"dsum": known["out"]}
    assert all(a.shape == known[a.name] for a in (*backward.results, *backward.inputs))
    assert set(backward.scalars) <= set(forward.scalars)


def test_a_c_signature_is_read():
    read = minillm.ops.spec.Signature.read("dwte[V,C]+= <- dout[B,T,3C] tokens[B,T]:int; B T C V start")
    assert [tuple(a) for a in read.results] == [("dwte", ("V", "C"), "real", True)]
    assert [tuple(a) for a in read.inputs] == [("dout", ("B", "T", "3C"), "real", False),
                                               ("tokens", ("B", "T"), "int", False)]
    assert read.scalars == ("B", "T", "C", "V", "start")


def test_all_but_two_ops_have_a_counterpart_in_pytorch():
    """tests/benchmarks/test_suite.py compares them where PyTorch is installed."""
    assert {op for op, spec in OPS.items() if spec.torch is None} == {"head", "sum_squares"}
