"""Which argument of a C function is which array or size of an op.

A mapping says it for each argument in turn or by name, as `theirs=ours`; names that everybody uses need none:

    inp=x           their `inp` is our `x`                      weight=weight.T   stored transposed: (OC, C) for (C, OC)
    dinp+=dx        they add their result to what is there      N=B*T             a product of sizes
    eps=1e-6        a number                                    att=[B,NH,T,T]    memory of their own, of this shape:
    probs=softmax(logits)   an input passed through an op                         what their forward leaves in it, their
                                                                                  backward finds there

Ours are the names of the op's C signature (`minillm kernel list`).
"""
import re
from dataclasses import dataclass

from ...ops.spec import Argument, Signature
from ...ops.table import OPS
from .prototype import Mapping, Parameter, Prototype

OTHER_OPS = {"encoder": "embedding", "matmul": "linear", "fc": "linear", "crossentropy": "cross_entropy",
             "layer_norm": "layernorm", "adam": "adamw"}             # what others call them, at the front of a name
SIZES = ("B", "T", "S", "C", "K", "NH", "HS", "OC", "R", "V", "N")
KNOWN = {   # theirs -> ours, the first that the op has and nothing else took; added to where everybody adds
    "inp": ("x", "qkv", "tokens", "logits"), "input": ("x", "qkv", "tokens", "logits"), "in": ("x", "qkv", "logits"),
    "a": ("x",), "dinp": ("dx+", "dqkv+", "dlogits+"), "dinput": ("dx", "dqkv", "dlogits"), "din": ("dx", "dqkv"),
    "output": ("out",), "y": ("out",), "dy": ("dout",), "doutput": ("dout",), "losses": ("out",), "loss": ("out",),
    "dlosses": ("dout",), "dloss": ("dout",), "gamma": ("weight",), "beta": ("bias",), "w": ("weight",),
    "b": ("bias",), "dgamma": ("dweight",), "dbeta": ("dbias",), "dw": ("dweight",), "db": ("dbias",),
    "inp1": ("x",), "inp2": ("y",), "dinp1": ("dx+",), "dinp2": ("dy+",),
    "probs": ("softmax(logits)", "out"), "logits": ("x",), "dlogits": ("dx",),
    "preatt": ("[B,NH,T,T]",), "att": ("[B,NH,T,T]",), "dpreatt": ("[B,NH,T,T]",), "datt": ("[B,NH,T,T]",),
    "params": ("w",), "grads": ("grad",), "g": ("grad",), "m_memory": ("m",), "v_memory": ("v",),
    "n": ("N",), "size": ("N",), "num_parameters": ("N",), "n_head": ("NH",), "num_heads": ("NH",), "nh": ("NH",),
    "Vp": ("V",), "vocab_size": ("V",), "batch": ("B",), "hs": ("HS",), "t": ("step",), "learning_rate": ("lr",),
    "epsilon": ("eps",), "ignore": ("ignore_index",), "rows": ("B*T",),
}
NUMBERS = {"block_size": 256, "blockSize": 256, "threads_per_block": 256, "sqrt_block_size": 16, "stream": 0}
ITEM = re.compile(r"(?:(?P<theirs>\w+)\s*(?P<plus>\+?)=\s*)?(?:(?P<shape>\[[^]]+\])|(?P<number>-?[\d.]+(?:e-?\d+)?f?)"
                  r"|(?P<through>\w+)\((?P<inner>\w+)\)|(?P<sizes>\w+(?:\s*\*\s*\w+)+)|(?P<ours>\w+)(?P<T>\.T)?)$")


@dataclass(frozen=True)
class Slot:
    """One argument of theirs: an array of ours, a size, a number, or memory of their own."""

    theirs: Parameter
    ours: str = ""                  # a name of the signature; "" for memory of their own and for a number
    added: bool = False             # they add to what is there
    transposed: bool = False
    through: str = ""               # the op that ours is passed through first, such as softmax
    shape: tuple[str, ...] = ()     # of memory of their own
    value: float | None = None      # a number written in the mapping
    kind: str = "array"             # "array", "scalar" or "own"


@dataclass(frozen=True)
class Function:
    """A C function bound to one direction of an op."""

    name: str
    op: str
    direction: str                  # "forward" or "backward"; the first for ops that have one function only
    slots: tuple[Slot, ...]
    returns: str = ""               # the result that the function returns as a number

    @property
    def signature(self) -> Signature:
        return OPS[self.op].signatures()[self.direction == "backward"]

    @property
    def dtype(self) -> str:
        """The dtype of its arrays, float32 or float64, as its prototype says."""
        real = [slot.theirs.type for slot in self.slots if slot.theirs.pointer
                and slot.theirs.type in ("float", "double")]
        return "float64" if real and all(kind == "double" for kind in real) else "float32"

    def results(self) -> list[Slot]:
        """The slots that it writes for us."""
        names = {argument.name for argument in self.signature.results}
        return [slot for slot in self.slots if slot.ours in names and not slot.through]


def bind(prototype: Prototype, op: str, mapping: Mapping | None = None) -> Function:
    """The function as one direction of an op. Raises ValueError for an argument that is none of the op's, naming it."""
    direction = direction_of(prototype, mapping, op)
    signature = OPS[op].signatures()[direction == "backward"]
    said = items_by_name(prototype, mapping) if mapping else {}
    slots: list[Slot] = []
    for parameter in prototype.parameters:
        slots.append(slot_of(prototype.name, parameter, said.get(parameter.name), signature, op, slots))
    returned = returned_result(prototype, signature, slots)
    check_enough(prototype.name, op, signature, slots, returned)
    return Function(prototype.name, op, direction, tuple(slots), returned)


def direction_of(prototype: Prototype, mapping: Mapping | None, op: str) -> str:
    """backward where it takes the gradient of the output."""
    theirs = {parameter.name for parameter in prototype.parameters} | set(mapping.items if mapping else ())
    gradients = {name for name in theirs if re.match(r"(\w+\s*\+?=\s*)?(dout|dsum|dlosses|dloss|dy|doutput)\b", name)}
    if gradients and len(OPS[op].c) < 2:
        raise ValueError(f"{prototype.name} takes {sorted(gradients)[0]}, but op {op} has no backward")
    return "backward" if gradients or (prototype.name.endswith("_backward") and len(OPS[op].c) > 1) else "forward"


def items_by_name(prototype: Prototype, mapping: Mapping) -> dict[str, str]:
    """{their argument: what the mapping says of it}; an item without a name of theirs is theirs if it is one, else it
    stands for the argument at its place."""
    names, found = [parameter.name for parameter in prototype.parameters], {}
    for place, item in enumerate(mapping.items):
        match = ITEM.match(item)
        if not match:
            raise ValueError(f"the mapping of {mapping.name} must be made of names and theirs=ours: got {item!r}")
        theirs = match["theirs"] or (item if item in names else names[place] if place < len(names) else item)
        if theirs not in names:
            raise ValueError(f"{mapping.name} has no argument {theirs!r}: it takes {', '.join(names)}")
        found[theirs] = item
    return found


def slot_of(function: str, theirs: Parameter, item: str | None, signature: Signature, op: str,
            taken: list[Slot]) -> Slot:
    """One argument, from what the mapping says of it or by its name."""
    arrays = {a.name: a for a in (*signature.results, *signature.inputs)}
    if item is None or item == theirs.name and item not in arrays:      # named alone: what everybody means by it
        item = by_custom(theirs, arrays, signature, taken)
        if item is None:
            raise ValueError(f"{function}: argument {theirs.name!r} is none of op {op} "
                             f"({', '.join([*arrays, *SIZES])}): "
                             f"say which by a comment: // minillm: {function}(..., {theirs.name}=OURS, ...)")
    match = ITEM.match(item)
    assert match
    if match["shape"]:
        return Slot(theirs, shape=tuple(match["shape"][1:-1].replace(" ", "").split(",")), kind="own",
                    added=bool(match["plus"]))
    if match["number"] and not theirs.pointer:
        return Slot(theirs, value=float(match["number"].rstrip("f")), kind="scalar")
    if match["through"]:
        return Slot(theirs, ours=match["inner"], through=match["through"])
    ours = (match["sizes"] or match["ours"] or "").replace(" ", "")
    if not theirs.pointer:
        return Slot(theirs, ours=ours, kind="scalar")
    if ours not in arrays:
        raise ValueError(f"{function}: {theirs.name}={ours}: op {op} has no array {ours!r}: it has {', '.join(arrays)}")
    check_type(function, theirs, arrays[ours])
    added = bool(match["plus"]) or (not match["theirs"] and arrays[ours].added)
    return Slot(theirs, ours=ours, added=added, transposed=bool(match["T"]))


def by_custom(theirs: Parameter, arrays: dict, signature: Signature, taken: list[Slot]) -> str | None:
    """The item that a name stands for where no mapping says it: our own name, or what everybody means by it."""
    used = {slot.ours for slot in taken}
    if (theirs.name in arrays) if theirs.pointer else (theirs.name in SIZES or theirs.name in signature.scalars):
        return theirs.name
    for ours in KNOWN.get(theirs.name, ()):
        plain = ours.rstrip("+")
        if ours.endswith("(logits)") and theirs.pointer and "logits" in arrays:
            return f"{theirs.name}={ours}"
        if ours[0] == "[" and theirs.pointer:
            return f"{theirs.name}={ours}"
        if (plain in arrays and plain not in used if theirs.pointer else
                plain in (*SIZES, "B*T", *signature.scalars)):
            adds = ours.endswith("+") or (plain in arrays and arrays[plain].added)
            return f"{theirs.name}{'+' * adds}={plain}"
    if theirs.name in NUMBERS and not theirs.pointer:
        return f"{theirs.name}={NUMBERS[theirs.name]}"
    return None


def check_type(function: str, theirs: Parameter, ours: Argument) -> None:
    """Raise where they take integers for what are floats, or the other way round."""
    real = theirs.type in ("float", "double")
    if real != (ours.type in ("real", "double")):
        raise ValueError(f"{function}: {theirs.name} is {theirs.type}*, but {ours.name} holds "
                         f"{'integers' if real else 'floats'}")


def returned_result(prototype: Prototype, signature: Signature, slots: list[Slot]) -> str:
    """The one result that a function may return as a number, if none of its arguments is it."""
    bound = {slot.ours for slot in slots}
    missing = [a.name for a in signature.results if a.name not in bound and a.shape == ("1",)]
    return missing[0] if missing and prototype.returns in ("float", "double") else ""


def check_enough(function: str, op: str, signature: Signature, slots: list[Slot], returned: str) -> None:
    """Raise unless it gives the op's first result at least (mean, rstd and the like are its own affair)."""
    bound = {slot.ours for slot in slots} | {returned}
    main = [a.name for a in signature.results if a.name == "out"
            or a.name.startswith("d")] or [signature.results[0].name]
    if missing := [name for name in main if name not in bound]:
        raise ValueError(f"{function} must give {', '.join(main)} of op {op}: none of its arguments is {missing[0]}")


def op_of(prototype: Prototype, mapping: Mapping | None) -> str | None:
    """The op that a function's name, or its mapping, stands for; None for a helper function."""
    if mapping and mapping.op:
        return mapping.op
    stem = re.sub(r"_(forward|backward|update|fwd|bwd|cpu|kernel|naive)\w*$", "", prototype.name)
    first = {name: op for name, op in OTHER_OPS.items() if prototype.name.startswith(name)}
    return stem if stem in OPS else next(iter(first.values()), None)
