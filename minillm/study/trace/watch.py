"""Recording ops: the namespace that a model runs on, in which every call notes what went in, what came out, and where.

The model's own forward and backward run as they are. What an op returns is a `Traced` view of its result, which knows
its place in the record, so that additions and matmuls that are no ops (`x + a`) are seen, too; ops get plain arrays.
The parameters and their gradients are known by identity. A composite op (the MLP) is run a second time from its
smaller ops, of the same backend, to see inside; what has the same bits is one array.
"""
import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...kernels.select import OPS, Ops, Spec, functions
from ...models.dry_run import dims_of, sizes_of
from ...ops.table import REFERENCE
from .source import calling_line, line_of_result

Array = np.ndarray
STEPS = {np.add: "+", np.matmul: "@", np.multiply: "*"}         # what a model does to arrays besides calling ops


class Kept(NamedTuple):
    """The cache of a recorded forward: its call, the op's own cache, and that of the same op made of its parts."""

    call: dict
    cache: Any
    parts: Any


class Traced(np.ndarray):
    """A view of a recorded array that knows its `key` in the record."""

    record: "Record | None"
    key: str | None

    def __array_finalize__(self, source: Any) -> None:
        self.record, self.key = getattr(source, "record", None), getattr(source, "key", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        if "out" in settings:
            settings["out"] = tuple(map(plain, settings["out"]))
        record = next((x.record for x in inputs if isinstance(x, Traced)), None)
        if ufunc is np.multiply and not any(isinstance(x, float) for x in inputs):
            record = None                       # a mask
        if method != "__call__" or settings or ufunc not in STEPS or record is None:
            return getattr(ufunc, method)(*map(plain, inputs), **settings)
        return record.step(ufunc, inputs)


def plain(x: Any) -> Any:
    """What an op is given: no Traced, not even in a tuple."""
    if isinstance(x, tuple):
        return tuple(map(plain, x))
    return np.asarray(x) if isinstance(x, Traced) else x


class Record:
    """Calls in the order in which they are made, and the arrays between them.

    arrays: {key: what is known of it}; live: {key: the numbers}.
    """

    def __init__(self, ops: Ops, params: Mapping[str, Array]):
        self.ops, self.calls, self.arrays, self.live = ops, list[dict](), dict[str, dict](), dict[str, Array]()
        self.known, self.phase, self.layer = dict[int, str](), "", ""
        self.parent: int | None = None                          # the composite op that is being looked into
        self.names: dict[int, str] = {}                         # gradient buffers, by identity
        self.shared: set[str] = set()                           # parameters that several calls read
        self.gains: dict[str, str] = {}                         # 1 + w: w, whose gradient is the same
        self.buffers: list[Array] = []                          # of the KV cache
        for name, view in params.items():
            self.array(view, name, "parameter", "parameter")

    # ---- arrays ----

    def array(self, value: Any, name: str, kind: str, role: str, made_by: int | None = None) -> str:
        """The key of an array: the one it has, or a new one."""
        if isinstance(value, Traced) and value.key is not None:
            whole = self.live[value.key]
            return value.key if value.size == whole.size else self.part(value, name)
        if id(value) in self.known:
            return self.known[id(value)]
        value = np.asarray(value)
        if any(np.may_share_memory(value, buffer) for buffer in self.buffers):
            kind, role = "cache", f"{name} of the tokens in the KV cache and of this one"
        key = f"a{len(self.arrays)}"
        self.arrays[key] = {"name": name, "kind": kind, "role": role, "made_by": made_by, "used_by": [], "of": []}
        self.live[key], self.known[id(value)] = value, key
        return key

    def part(self, value: Traced, name: str) -> str:
        """A slice of a recorded array, as a step of its own."""
        whole = value.key or ""
        call = self.call(None, "slice", [{"name": "x", "array": whole}])
        kind = self.arrays[whole]["kind"]
        key = self.array(np.array(value), name, kind, f"part of {self.arrays[whole]['name']}", call["id"])
        call["outputs"].append({"name": name, "array": key})
        return key

    def traced(self, key: str) -> Traced:
        view = self.live[key].view(Traced)
        view.record, view.key = self, key
        return view

    def gradient_of(self, key: str, of: str) -> None:
        """Array `key` is the gradient of `of`; the last one that is said to be is the whole of it, and that of an op
        is above those of its parts."""
        self.arrays[key]["of"].append(of)
        if self.parent is None or "gradient" not in self.arrays[of]:
            self.arrays[of]["gradient"] = key

    def owner(self, key: str) -> str | None:
        """Whose gradient an array is: of two with one gradient the one of which it is the whole."""
        of = self.arrays[key]["of"]
        return next((one for one in of if self.arrays[one].get("gradient") == key), of[0] if of else None)

    # ---- calls ----

    def call(self, spec: Spec | None, function: str, inputs: list[dict], where: str = "") -> dict:
        made = {"id": len(self.calls), "op": spec and spec.name, "function": function, "phase": self.phase,
                "where": where, "inputs": inputs, "outputs": [], "partner": None, "parent": self.parent,
                "called": calling_line(), "backend": self.ops.backends[spec.name] if spec else "numpy"}
        self.calls.append(made)
        for given in inputs:
            if "array" in given:
                self.arrays[given["array"]]["used_by"].append(made["id"])
        return made

    def inputs_of(self, values: Mapping[str, Any], kind: str, call: str) -> list[dict]:
        """What a call is given, arrays by their keys."""
        found = []
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                integer = value.dtype.kind in "iu"
                key = self.array(value, name, "token" if integer else kind, f"{name} of {call}")
                found.append({"name": name, "array": key})
            elif value is not None:
                found.append({"name": name, "value": value})
        return found

    def step(self, ufunc: np.ufunc, inputs: tuple) -> Traced:
        """x + y, x @ y or x * y outside of any op. A matmul is the backend's, as within its composite ops."""
        kind = "gradient" if self.phase == "backward" else "activation"
        call = self.call(None, STEPS[ufunc], self.inputs_of(dict(zip("xy", inputs)), kind, STEPS[ufunc]), self.layer)
        x, y = map(plain, inputs)
        out = self.matmul(x, y) if ufunc is np.matmul else ufunc(x, y)
        call["values"] = {"x": x, "y": y}
        key = self.array(out, "out", kind, call["called"]["text"], call["id"])
        call["outputs"].append({"name": "out", "array": key, "source": call["called"]})
        arrays = [given["array"] for given in call["inputs"] if "array" in given]
        if ufunc is np.add and len(arrays) == 1 and self.arrays[arrays[0]]["kind"] == "parameter":
            self.gains[key] = arrays[0]
        owners = [self.arrays[array]["of"] for array in arrays]
        for of in [of for of in owners[0] if of in owners[-1]] if ufunc is np.add else []:
            self.gradient_of(key, of)                           # the sum of what came back along two ways
        return self.traced(key)

    def matmul(self, x: Array, y: Array) -> Array:
        if self.ops.backends["linear"] == "numpy":
            return x @ y
        return self.ops.linear_forward(np.ascontiguousarray(x), np.ascontiguousarray(y),
                                       np.zeros(y.shape[1], x.dtype))[0]


# ---- namespaces ----

def watched(model: Any, record: Record) -> Any:
    """The model on the record's ops. Of one that adds 1 to the weights of its norms, the sums are recorded, too."""
    def gain(name: str) -> Any:
        record.layer = name.removesuffix(".weight")
        return 1 + record.traced(record.known[id(model.params[name])])
    other = model.on(recording(record))
    if hasattr(model, "gain"):
        other.gain = gain
    return other


def recording(record: Record) -> Ops:
    """The record's ops, each call of which is recorded."""
    wrapped: dict[str, Callable] = {}
    for spec in OPS.values():
        if spec.kind == "pair":
            wrapped |= zip(functions(spec), (recorded_forward(record, spec), recorded_backward(record, spec)))
        elif spec.kind == "decode":
            wrapped[spec.name] = recorded_forward(record, spec)
        else:
            wrapped |= {name: recorded_update(record, spec, name) for name in functions(spec)}
    return record.ops._replace(**wrapped)


def recorded_forward(record: Record, spec: Spec) -> Callable:
    name = functions(spec)[0]
    names = list(inspect.signature(REFERENCE[name]).parameters)
    function = getattr(record.ops, name)

    def forward(*args: Any, **more: Any) -> Any:
        values = dict(zip(names, args)) | more
        layer = layer_of(record, values)
        call = record.call(spec, name, record.inputs_of(values, "activation", f"{spec.name} {layer}".strip()), layer)
        found = function(*map(plain, args), **{key: plain(value) for key, value in more.items()})
        out, cache = found if spec.kind == "pair" else (found, None)
        out = out if isinstance(out, tuple) else (out,)
        call["values"], call["shapes"] = {key: plain(value) for key, value in values.items()}, [x.shape for x in out]
        count_work(call, spec, call["values"], out)
        keys = []
        for place, (result, value) in enumerate(zip(spec.signatures()[0].results, out)):
            key = record.array(value, result.name, "activation", f"output of {spec.name} {layer}".strip(), call["id"])
            call["outputs"].append({"name": result.name, "array": key, "source": line_of_result(name, place)})
            keys.append(key)
        inner = parts_of(record, name, call, args) if spec.composite else None
        traced = tuple(map(record.traced, keys))
        traced_out = traced if len(traced) > 1 else traced[0]
        return (traced_out, Kept(call, cache, inner)) if spec.kind == "pair" else traced_out
    return forward


def recorded_backward(record: Record, spec: Spec) -> Callable:
    name = functions(spec)[1]
    function = getattr(record.ops, name)

    def backward(dout: Any, kept: Kept, into: Any = None) -> Any:
        first = kept.call
        outs = [output["name"] for output in first["outputs"]]
        douts = dict(zip([f"d{out}" for out in outs], dout if isinstance(dout, tuple) else (dout,)))
        call = record.call(spec, name, record.inputs_of(douts, "gradient", f"{spec.name} {first['where']}".strip()),
                           first["where"])
        call["partner"], first["partner"] = first["id"], call["id"]
        call["flops"], call["bytes"] = first.pop("backward")
        for given in call["inputs"]:
            made = next(output["array"] for output in first["outputs"] if f"d{output['name']}" == given["name"])
            if not record.arrays[given["array"]]["of"]:
                record.gradient_of(given["array"], made)
        found = function(plain(dout), kept.cache, **({} if into is None else {"into": into}))
        found = found if isinstance(found, tuple) else (found,)
        keys = gradients_of(record, spec, call, first, found, into)
        if kept.parts is not None:
            parts_back(record, name, call, dout, kept.parts)
        results = tuple(value if value is None or key is None or id(value) in record.names else record.traced(key)
                        for value, key in zip(found, keys))
        return results if len(results) > 1 else results[0]
    return backward


def gradients_of(record: Record, spec: Spec, call: dict, first: dict, found: tuple, into: Any) -> list[str | None]:
    """Note the results of a backward; their keys."""
    given = {put["name"]: put["array"] for put in first["inputs"] if "array" in put}
    buffers = [None] * (len(found) - len(into or ())) + list(into or ())
    keys: list[str | None] = []
    for name, value, buffer in zip(spec.differentiable, found, buffers):
        if value is None:
            keys.append(None)
            continue
        of = record.gains.get(given[name], given[name])
        if buffer is not None:                                  # the gradient so far, this call's part added
            value = buffer.copy() if record.arrays[of]["name"] in record.shared else buffer
        before = record.arrays[of].get("gradient") if buffer is not None else None
        key = record.array(value, f"d{record.arrays[of]['name'] if buffer is not None else name}", "gradient",
                           f"gradient of {record.arrays[of]['name']}", call["id"])
        if before is not None:
            record.arrays[key]["before"] = before
        record.gradient_of(key, of)
        call["outputs"].append({"name": f"d{name}", "array": key,
                                "source": line_of_result(call["function"], f"d{name}")})
        keys.append(key)
    return keys


def recorded_update(record: Record, spec: Spec, name: str) -> Callable:
    """Of sum_squares and AdamW, which work on all parameters at once: their numbers stand with the parameters."""
    function = getattr(record.ops, name)
    names = list(inspect.signature(REFERENCE[name]).parameters)

    def update(*args: Any) -> Any:
        values = dict(zip(names, args))
        inputs = [{"name": key, "value": f"all {value.size:,} numbers" if isinstance(value, np.ndarray) else value}
                  for key, value in values.items() if value is not None]
        call = record.call(spec, name, inputs)
        found = function(*map(plain, args))
        count_work(call, spec, values, () if found is None else (found,))
        if found is not None:
            call["outputs"].append({"name": "out", "value": found, "source": line_of_result(name, 0)})
        return found
    return update


# ---- composite ops, from within ----

def parts_of(record: Record, name: str, call: dict, args: tuple) -> Any:
    """Run a composite op once more from its smaller ops, recorded inside of the call; returns the cache of that."""
    before, record.parent = (record.parent, record.layer), call["id"]
    given = [record.traced(put["array"]).reshape(value.shape) if isinstance(value, np.ndarray) else value
             for put, value in zip(call["inputs"], args)]
    _, cache = REFERENCE[name](*given, ops=SimpleNamespace(**recording(record)._asdict()))
    record.parent, record.layer = before
    return cache


def parts_back(record: Record, name: str, call: dict, dout: Any, cache: Any) -> None:
    before, record.parent = record.parent, call["id"]
    REFERENCE[name](dout, cache, ops=SimpleNamespace(**recording(record)._asdict()))
    record.parent = before


def unite(record: Record) -> dict[str, str]:
    """{key: key of another}: of arrays inside of composite ops that have the bits of one outside, or of one before."""
    family, same = {}, dict[str, str]()
    for call in record.calls:                                               # a composite's two calls and their parts
        top = call if call["parent"] is None else record.calls[call["parent"]]
        family[call["id"]] = min(top["id"], top["id"] if top["partner"] is None else top["partner"])
    for key, array in record.arrays.items():
        made = array["made_by"]
        if made is None or record.calls[made]["parent"] is None:
            continue
        for other, candidate in record.arrays.items():
            known = candidate["made_by"]
            if other == key or other in same or known is None or family[known] != family[made]:
                continue
            if known > made and record.calls[known]["parent"] is not None:
                continue
            if alike(record.live[key], record.live[other]):
                same[key] = other
                break
    return same


def alike(a: Array, b: Array) -> bool:
    return a.size == b.size and a.dtype == b.dtype and np.array_equal(a.ravel(), b.ravel())


# ---- what is known of a call ----

def layer_of(record: Record, values: Mapping[str, Any]) -> str:
    """The layer that a call works for, by the names of its parameters: h.0.mlp of two; without any, that of the call
    before it."""
    keys = [record.known.get(id(value)) or getattr(value, "key", None) for value in values.values()
            if isinstance(value, np.ndarray)]
    keys = [record.gains.get(key or "", key) for key in keys]
    names = [record.arrays[key]["name"].rpartition(".")[0] for key in keys
             if key and record.arrays[key]["kind"] == "parameter"]
    if names and len(set(names)) > 1 and all("." in name for name in names):
        names = [names[0].rpartition(".")[0]]
    if not names:
        above, _, last = record.layer.rpartition(".")
        return above if last.startswith("c_") or last.endswith(("_proj", "_norm")) else record.layer
    record.layer = " ".join(dict.fromkeys(names))
    return record.layer


def count_work(call: dict, spec: Spec, values: Mapping[str, Any], out: tuple) -> None:
    """FLOPs and least bytes of a call, by the op table; those of its backward are kept for that."""
    forward, backward = spec.flops(dims_of(sizes_of(spec, values)))
    read, back = spec.traffic(values, out)
    call |= {"flops": int(forward), "bytes": int(read), "backward": (int(backward), int(back))}
