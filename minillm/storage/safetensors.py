"""The safetensors file format: named arrays that can be read without running anybody's code.

    8 bytes   n, the length of the header, unsigned little-endian
    n bytes   JSON: {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    the rest  the arrays, little-endian, C order; offsets count from the end of the header

A pickle can execute anything when it is opened; here a reader has only numbers to check, and it checks them all: the
arrays must tile the rest of the file exactly, without gap or overlap. The header is padded with spaces so that the
data starts at a multiple of 8, which lets an array be a view into the memory-mapped file.
Format: https://huggingface.co/docs/safetensors (Hugging Face, 2022).
"""
import json
import math
import reprlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .atomic import AnyPath, atomic_write

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "|u1", "I8": "|i1",
          "BOOL": "|b1", "BF16": "<u2"}   # NumPy has no bfloat16: its 16 bits are written, and widened when read
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000   # bytes; the limit of the original reader, so that files we write open there
MAX_DIMS = 64              # of a NumPy array; also keeps the product of the sizes below from growing without end


def write_safetensors(path: AnyPath, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write {name: array} and optional {key: text} to `path`, which is replaced in one step or not at all.

    The arrays go straight to the file; only one that is not contiguous is copied, alone. Raises ValueError for a
    dtype the format (or this writer) does not have and for a reserved name, OSError as the file system does.
    """
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    # Widest elements first, so that every array starts at a multiple of its own element size.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    header = encode_header(path, arrays, metadata)
    with atomic_write(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in arrays.values():
            little_endian = array.dtype.newbyteorder("<")
            file.write(np.asarray(array, little_endian, order="C"))


def encode_header(path: AnyPath, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None) -> bytes:
    """The header's bytes, padded to a multiple of 8."""
    header, begin = dict[str, dict](), 0
    if metadata:
        check_metadata(path, metadata)
        header["__metadata__"] = metadata
    for name, array in arrays.items():
        code = CODES.get(array.dtype.newbyteorder("<"))
        if code is None:
            raise ValueError(f"{path}: tensor {name!r} has dtype {array.dtype}: expected one of {names(CODES)}")
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"{path}: {name!r} cannot be the name of a tensor")
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, begin + array.nbytes]}
        begin += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    return text.ljust(-(-len(text) // 8) * 8)   # round up to 8


def read_safetensors(path: AnyPath) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read `path`; returns ({name: array}, {key: text}).

    The arrays are read-only views of the memory-mapped file (nothing is read until it is used), except BF16, which
    is widened to a fresh float32. Raises ValueError naming the file, and the tensor where there is one, for
    anything that is not exactly the format above; FileNotFoundError.
    """
    header, data = open_file(path)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata             # some writers leave null there
    check_metadata(path, metadata)
    for name, entry in header.items():
        check_entry(f"{path}: tensor {name!r}", entry)
    check_tiling(path, header, len(data))
    return {name: view(f"{path}: tensor {name!r}", entry, data) for name, entry in header.items()}, metadata


def open_file(path: AnyPath) -> tuple[dict, np.ndarray]:
    """The header as a dict, and the rest of the file as a read-only memory map of uint8."""
    size = Path(path).stat().st_size
    if size < 8:
        raise ValueError(f"{path}: not a safetensors file: {size} bytes are too few for the header's length")
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if length > min(len(raw) - 8, MAX_HEADER):
        raise ValueError(f"{path}: not a safetensors file, or truncated: "
                         f"the header claims {length} bytes, the file has {len(raw) - 8} after its first 8")
    return parse_json_object(raw[8:8 + length].tobytes(), f"{path}: header"), raw[8 + length:]


def parse_json_object(text: bytes, where: str) -> dict:
    """Parse the bytes of a JSON object, refusing a key that comes twice. Raises ValueError that opens with `where`."""
    def unique(pairs: list[tuple[str, object]]) -> dict:
        result = dict(pairs)
        if len(result) < len(pairs):
            name = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"duplicate name {reprlib.repr(name)}: it is there twice")
        return result

    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=unique)      # some editors leave a BOM
    except (ValueError, RecursionError) as error:   # ValueError covers bad UTF-8 and bad JSON
        raise ValueError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def check_metadata(path: AnyPath, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for item in metadata.items() for text in item):
        raise ValueError(f"{path}: __metadata__ must map text to text")


def check_entry(where: str, entry: object) -> None:
    """One tensor's entry: known dtype, a shape, two offsets, and as many bytes as the shape needs."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where}: expected an entry with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{where}: unknown dtype {reprlib.repr(dtype)}: expected one of {names(DTYPES)}")
    if not is_sizes(shape):
        raise ValueError(f"{where}: shape must be a list of at most {MAX_DIMS} sizes, got {reprlib.repr(shape)}")
    if not is_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{where}: data_offsets must be two byte positions, got {reprlib.repr(offsets)}")
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != needed:
        raise ValueError(f"{where}: shape {tuple(shape)} of {dtype} needs {needed} bytes, data_offsets {offsets} hold "
                         f"{offsets[1] - offsets[0]}")


def is_sizes(value: object) -> bool:
    return (isinstance(value, list) and len(value) <= MAX_DIMS
            and all(type(v) is int and 0 <= v < 2**63 for v in value))


def check_tiling(path: AnyPath, header: dict[str, dict], size: int) -> None:
    """The tensors must cover the data exactly, each byte once."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, next_end = entry["data_offsets"]
        if begin != end:
            fault = "overlaps the tensor" if begin < end else "leaves a gap after the tensor"
            raise ValueError(f"{path}: tensor {name!r} starts at byte {begin} of the data and {fault} "
                             f"that ends at {end}")
        if next_end > size:
            raise ValueError(f"{path}: truncated: tensor {name!r} ends at byte {next_end} of the data, "
                             f"the file holds {size}")
        end = next_end
    if end != size:
        raise ValueError(f"{path}: {size - end} bytes after the last tensor belong to none")


def view(where: str, entry: dict, data: np.ndarray) -> np.ndarray:
    """The tensor as an array over the mapped bytes."""
    begin, end = entry["data_offsets"]
    array = data[begin:end].view(DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":   # bfloat16 is the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
        array.flags.writeable = False
    try:
        return array.reshape(entry["shape"])
    except ValueError as error:   # more dimensions than NumPy has
        raise ValueError(f"{where}: {error}") from None


def names(table: Mapping) -> str:
    return ", ".join(str(key) if isinstance(key, str) else key.name for key in table)
