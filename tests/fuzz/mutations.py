"""Changes to valid inputs, drawn by a random.Random: of bytes, of JSON, of a folder's files, of arrays."""

import json
import shutil

import numpy as np

INTEGERS = (0, 1, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
HUGE, DEEP = "<a number of 5,000 digits>", "<nested 3,000 deep>"  # written by `json_text`
VALUES = (
    None,
    True,
    False,
    *INTEGERS,
    -(2**63),
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    HUGE,
    DEEP,
    "",
    "x",
    "\0",
    "\ud800",
    "../../etc/passwd",
    "a" * 5000,
    "<|endoftext|>",
    "2",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    {"a": 1, "b": [2]},
)
TEXTS = (
    "a",
    " ",
    "\n",
    "\r\n",
    "\0",
    "é",
    "漢",
    "☃",
    "🙂",
    "\u0301",
    "\u200d",
    "\u2028",
    "\ud800",
    "\udfff",
    "ı",
    "'s",
    "'LL",
    "123",
    "1234567",
    "<|endoftext|>",
    "<|",
    "|>",
    "<",
    "\u00a0",
    "\u3000",
    "\x85",
    "\t",
    "ǅ",
    "ß",
    "ſ",
    "K",
    "_",
    "-",
    "the quick brown",
    "x" * 300,
    " " * 50,
    "\n" * 20,
)


def bytes_(rng, data: bytes, times: int = 2) -> bytes:
    """The bytes, changed in one to `times` places."""
    data = bytearray(data)
    for _ in range(rng.randint(1, times)):
        rng.choice(BYTE_CHANGES)(rng, data)
    return bytes(data)


def place(rng, data):
    """(start, end) of a piece, short more often than long."""
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, rng.randint(0, len(data)))))


def cut_off(rng, data):
    del data[rng.randint(0, len(data)) :]


def leave_out(rng, data):
    start, end = place(rng, data)
    del data[start:end]


def double(rng, data):
    start, end = place(rng, data)
    data[start:start] = data[start:end] * rng.choice((1, 1, 2, 40))


def swap(rng, data):
    a, b, c, d = sorted(rng.randint(0, len(data)) for _ in range(4))
    data[:] = data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def flip(rng, data):
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def number(rng, data):
    """A number of 1, 2, 4 or 8 bytes gets another value, perhaps near the size of what follows."""
    size, start = rng.choice((1, 2, 4, 8)), rng.randint(0, len(data))
    value = rng.choice((*INTEGERS, len(data), len(data) - start, rng.getrandbits(64)))
    data[start : start + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))


def insert(rng, data):
    start = rng.randint(0, len(data))
    data[start:start] = rng.choice(
        (
            rng.randbytes(rng.randint(1, 40)),
            b"\0" * 64,
            b"\xff" * 9,
            b"\n",
            b"\r\n",
            b"{",
            b'"',
            b"<",
            b"\xef\xbb\xbf",
            b"9" * 30,
        )
    )


BYTE_CHANGES = (cut_off, leave_out, double, swap, flip, flip, number, number, insert)


def json_(rng, value):
    """A document with one node changed."""
    value = json.loads(json.dumps(value))
    nodes = list(walk(value))
    if not nodes:
        return rng.choice(VALUES)
    holder, key = rng.choice(nodes)
    change = rng.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", key.upper(), key + "\0", "__class__"))] = holder.pop(key)
    elif change == 2 and isinstance(holder[key], (int, float)):
        holder[key] = rng.choice(
            (holder[key] + 1, -holder[key], holder[key] * 10**6, float(holder[key]), str(holder[key]))
        )
    elif change == 3:
        other, name = rng.choice(nodes)
        holder[key], other[name] = other[name], holder[key]
        value = json.loads(json.dumps(value)) if not circular(value) else rng.choice(VALUES)
    elif change == 4 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice((1, 3, 1000))
    else:
        holder[key] = rng.choice(VALUES)
    return value


def walk(value):
    """(holder, key) of every node but the root."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, child in pairs:
        yield value, key
        yield from walk(child)


def circular(value) -> bool:
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False


def json_text(rng, value, **layout) -> bytes:
    """A document as JSON; sometimes with a key twice, cut off, or changed as bytes."""
    text = json.dumps(value, **layout)
    text = text.replace(json.dumps(HUGE), "1" + "0" * 5000).replace(json.dumps(DEEP), "[" * 3000 + "]" * 3000)
    change = rng.randrange(12)
    if change == 0 and '": ' in text:
        start = rng.choice([i for i in range(len(text)) if text.startswith('"', i)])
        text = text[:start] + text[start:].replace(", ", ", " + text[max(0, start - 20) : start + 20] + ", ", 1)
    if change == 1:
        text = "\ufeff" + text
    data = text.encode("utf-8", "surrogatepass")
    return bytes_(rng, data) if change in (2, 3) else data


def changed_copy(rng, source, target, again=lambda folder: None) -> int:
    """Copy a folder, with one file changed (JSON as JSON, mostly), lost or replaced. Returns the size of all.

    again: what seals the copy, now and then.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = rng.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    change = rng.randrange(12)
    if change == 0:
        path.unlink()
    elif change == 1:
        path.unlink(), path.mkdir()
    elif change == 2:
        path.write_bytes(rng.choice(sorted(other for other in source.rglob("*") if other.is_file())).read_bytes())
    elif path.suffix == ".json" and change < 10:
        path.write_bytes(json_text(rng, json_(rng, json.loads(path.read_text(encoding="utf-8")))))
    else:
        path.write_bytes(bytes_(rng, path.read_bytes()))
    if rng.random() < 0.6:
        again(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def text(rng, longest: int = 40) -> str:
    return "".join(
        rng.choice(TEXTS) if rng.random() < 0.7 else chr(rng.randrange(0x110000))
        for _ in range(rng.randint(0, longest))
    )


def huge_strides(a):
    """The same numbers where the strides of axes of one or no number are absurd."""
    strides = [2**62 if n < 2 else s for n, s in zip(a.shape, a.strides)]
    return np.lib.stride_tricks.as_strided(a, a.shape, strides)


class Subclass(np.ndarray):
    pass


LAYOUTS = {  # changes of an array that keep its numbers
    "itself": lambda a: a,
    "Fortran": np.asfortranarray,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "huge strides": huge_strides,
    "subclass": lambda a: a.view(Subclass),
    "gaps": lambda a: np.repeat(a[..., None], 2, -1)[..., 0],
    "backwards twice": lambda a: a[::-1].copy()[::-1],
    "between addresses": lambda a: np.frombuffer(bytearray(1) + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}
ARRAYS = {  # and others
    "no axis": lambda a: np.array(a.flat[0] if a.size else 0, a.dtype),
    "nothing": lambda a: a.reshape(-1)[:0],
    "no rows": lambda a: a[:0],
    "empty rows": lambda a: a[..., :0],
    "more axes": lambda a: a[None, ..., None],
    "flat": lambda a: a.reshape(-1),
    "shorter": lambda a: a[:-1].copy(),
    "wider": lambda a: np.concatenate([a, a], -1),
    "transposed": lambda a: a.T,
    "backwards": lambda a: a[::-1],
    "one number": lambda a: np.broadcast_to(a.dtype.type(1), a.shape),
    "other bytes first": lambda a: a.astype(a.dtype.newbyteorder()),
    "masked": lambda a: np.ma.masked_array(a, a == a),
    "matrix": lambda a: np.asmatrix(a.reshape(len(a), -1)),
    "record": lambda a: np.zeros(a.shape, "f4,i8"),
    **{
        kind: lambda a, kind=kind: a.astype(kind)
        for kind in (
            "float16",
            "float32",
            "float64",
            "longdouble",
            "complex128",
            "int8",
            "int64",
            "uint64",
            "bool",
            "object",
            "S3",
            "U2",
            "M8[s]",
        )
    },
    **{str(number): lambda a, number=number: np.full_like(a, number) for number in (np.nan, np.inf, -np.inf, 0, 1, -1)},
    "largest": lambda a: np.full_like(a, np.finfo(a.dtype).max if a.dtype.kind in "fc" else np.iinfo(a.dtype).max),
    "many axes": lambda a: a.reshape(*a.shape, *[1] * (32 - a.ndim)),
}
OBJECTS = (
    None,
    "text",
    b"bytes",
    3,
    -1,
    2**70,
    1.5,
    float("nan"),
    1j,
    [],
    [[1.0, 2.0]],
    (),
    {},
    object(),
    np.float32(1),
    np.array(None),
    memoryview(b"abcd"),
    np.dtype("f4"),
)
