"""A record as plain data that JSON can hold: arrays with their numbers, calls, ops, the optimizer's work."""
import math
from typing import Any

import numpy as np

from ...models.packing import Batch
from ...ops.table import FILES
from ...train.optim import AdamW
from ..formulas import formulas_of, to_mathml
from .numbers import Cut, cut_of, shortest, statistics
from .source import shown
from .terms import TOP
from .watch import Record

Array = np.ndarray
BYTES = 1_700_000                   # of a record as JSON, about: a page has 2 MB
NUMBER, CALL, ARRAY = 12, 750, 400  # bytes of each
ELEMENT, TERM = 14, 17              # bytes of an element that is explained, and of each of its terms
LEAST = 2500                        # elements that are explained


def described(model: Any) -> dict:
    return {"parameters": model.params.flat.size, "config": vars(model.config), "dtype": str(model.params.flat.dtype),
            "backends": dict(model.ops.backends)}


def ops_of(seen: Record) -> dict:
    """What the op table says of each op that was called."""
    found = {}
    for name in dict.fromkeys(call["op"] for call in seen.calls if call["op"]):
        docstring = FILES[name].__doc__ or ""
        found[name] = {"summary": docstring.split("\n\n")[0].replace("\n", " "), "docstring": docstring,
                       "file": shown(FILES[name].__file__ or ""),
                       "formulas": [{"text": formula.text, "line": formula.line, "mathml": to_mathml(formula.text)}
                                    for formula in formulas_of(docstring)]}
    return found


def plan(seen: Record, same: dict[str, str], batch: Batch, updates: int) -> tuple[dict[str, Cut], int]:
    """What is shown of each array: all, if there is room for all of them, else less of the largest; and how many
    elements of gradients there is room to explain. updates: numbers of the optimizer for each of a parameter."""
    vocabulary, used = seen.live["a0"].shape[0], CALL * len(seen.calls) + ARRAY * len(seen.live)
    tokens, targets = (list(dict.fromkeys(ids.ravel().tolist())) for ids in (batch.tokens, batch.targets))

    def cut(key: str, most: float) -> Cut:
        shape = seen.live[key].shape
        return cut_of(shape, most, tokens if shape[0] == vocabulary else (), targets if shape[-1] == vocabulary else ())

    for most in (math.inf, *(2 ** n for n in range(14, 3, -1))):
        cuts = {key: cut(key, most) for key in seen.live if key not in same}
        count = sum(cut.size * (1 + updates * (seen.arrays[key]["kind"] == "parameter")) for key, cut in cuts.items())
        room = (BYTES - used - NUMBER * count) // (ELEMENT + TERM * min(TOP, batch.tokens.size))
        if room >= LEAST:
            break
    return cuts, max(LEAST, room)


def arrays_of(seen: Record, same: dict[str, str], cuts: dict[str, Cut], measured: dict, shares: dict) -> dict:
    """Every array with its numbers, its gradient, and what is known of that."""
    twins: dict[str, list[dict]] = {}                                   # what is known of each, under all of its keys
    for name, about in seen.arrays.items():
        twins.setdefault(same.get(name, name), []).append(about)
    found = {}
    for key, cut in cuts.items():
        about, array = seen.arrays[key], seen.live[key]
        gradient = next((twin["gradient"] for twin in twins[key] if "gradient" in twin), None)
        of = seen.owner(key)
        found[key] = {
            "id": key, **{name: about[name] for name in ("name", "kind", "role", "made_by")}, "shape": [*array.shape],
            "dtype": str(array.dtype), "used_by": sorted({call for twin in twins[key] for call in twin["used_by"]}),
            "gradient": gradient and same.get(gradient, gradient), "of": of and same.get(of, of),
            "stats": statistics(array, not cut.whole), "whole": cut.whole,
            **({} if cut.whole else {"rows": cut.rows, "cols": cut.cols}),
            "values": shortest(array.ravel()[cut.places]),
            **{name: known[key] | {"index": places(known[key]["index"], array.size)}
               for name, known in (("numeric", measured), ("contributors", shares)) if key in known}}
    return found


def places(index: Array, size: int) -> list | None:
    """Of elements; None for all."""
    return None if len(index) == size else index.tolist()


def calls_of(seen: Record, same: dict[str, str]) -> list[dict]:
    for call in seen.calls:
        for put in call["inputs"] + call["outputs"]:
            if "array" in put:
                put["array"] = same.get(put["array"], put["array"])
        for name in ("backward", "values", "shapes"):
            call.pop(name, None)
        call |= {name: call.get(name) for name in ("flops", "bytes", "seconds")}
    return seen.calls


def updated(seen: Record, optimizer: AdamW, cuts: dict[str, Cut], training: Any) -> list[dict]:
    """AdamW, parameter by parameter: the moments and the weight, at the places that are shown of the parameter."""
    found = []
    for key, about in seen.arrays.items():
        if about["kind"] == "parameter":
            name, cut = about["name"], cuts[key].places
            before, after = seen.live[key].ravel()[cut], optimizer.params[name].ravel()[cut]
            moments = {label: shortest(values[name].ravel()[cut]) if values else None
                       for label, values in (("m", training.m), ("v", training.v), ("m_after", optimizer.m),
                                             ("v_after", optimizer.v))}
            found.append({"name": name, "decayed": seen.live[key].ndim > 1, "value": key,
                          "gradient": about["gradient"], **moments, "update": shortest(after - before),
                          "after": shortest(after)})
    return found


def totals(calls: list[dict]) -> dict:
    """FLOPs, bytes and seconds of each phase; parts of a composite op are in the op."""
    found: dict[str, dict] = {}
    for call in calls:
        if call["op"] and call["parent"] is None:
            total = found.setdefault(call["phase"], {"flops": 0, "bytes": 0, "seconds": 0.0})
            for name in total:
                total[name] += call[name]
    return found
