"""safetensors: exact round trips, strict reading of damaged files, the library that everybody uses both ways."""
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_same_bits, same_bits

from minillm.storage.safetensors import read_safetensors, write_safetensors

DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"]


def sample_tensors():
    rng = np.random.default_rng(1)
    tensors = {f"t.{dtype}": rng.integers(0, 2, (3, 5)).astype(dtype) for dtype in DTYPES}
    return tensors | {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.float32), "ünï ☃": np.arange(7.0)}


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, sample_tensors(), {"format": "pt", "note": "naïve"})
    tensors, metadata = read_safetensors(path)
    assert_same_bits(tensors, sample_tensors())
    assert metadata == {"format": "pt", "note": "naïve"}
    assert all(not array.flags.writeable and array.flags.aligned for array in tensors.values())
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.dictionaries(st.text().filter(lambda name: name != "__metadata__"),
                       st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)), max_size=5))
def test_round_trip_of_any_names_and_shapes(tmp_path_factory, kinds):
    path = tmp_path_factory.mktemp("any") / "x"
    tensors = {name: np.arange(math.prod(shape)).reshape(shape).astype(dtype)
               for name, (dtype, shape) in kinds.items()}
    write_safetensors(path, tensors)
    assert_same_bits(read_safetensors(path)[0], tensors)


def test_strided_and_big_endian_arrays(tmp_path):
    grid = np.arange(24.0).reshape(4, 6)
    write_safetensors(tmp_path / "x", {"t": grid.T, "step": grid[::2, ::3], "big": grid.astype(">f8")})
    tensors, _ = read_safetensors(tmp_path / "x")
    assert_same_bits(tensors, {"t": grid.T.copy(), "step": grid[::2, ::3].copy(), "big": grid})


def test_writing_makes_no_second_copy(tmp_path):
    import tracemalloc
    array = np.zeros(8_000_000, np.uint8)
    tracemalloc.start()
    write_safetensors(tmp_path / "x", {"a": array, "b": array.view(np.float32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("header, words", [
    (b"{", ["not valid JSON"]),
    (b"\xff{}", ["not valid JSON"]),
    (b"[" * 100_000, ["not valid JSON"]),
    (b"[1]", ["expected a JSON object"]),
    (b'{"a": 1, "a": 2}', ["duplicate", "'a'"]),
    ({"a": 3}, ["'a'", "data_offsets"]),
    ({"a": entry(0, 8) | {"extra": 1}}, ["'a'"]),
    ({"a": entry(0, 8, dtype="F8")}, ["'a'", "unknown dtype 'F8'"]),
    ({"a": entry(0, 8, dtype=["F32"])}, ["'a'", "unknown dtype"]),
    ({"a": entry(0, 8, shape=[-8])}, ["'a'", "shape"]),
    ({"a": entry(0, 8, shape=[True])}, ["'a'", "shape"]),
    ({"a": entry(0, 8, shape=[2.0])}, ["'a'", "shape"]),
    ({"a": entry(0, 8, shape=[3], dtype="F32")}, ["'a'", "needs 12 bytes"]),
    ({"a": entry(0, 8), "b": entry(4, 8)}, ["'b'", "overlaps"]),
    ({"a": entry(0, 2), "b": entry(4, 8)}, ["'b'", "gap"]),
    ({"a": entry(0, 9)}, ["'a'", "truncated"]),
    ({"a": entry(0, 7)}, ["1 bytes after the last tensor"]),
    ({"a": entry(0, 8) | {"data_offsets": [8, 0]}}, ["'a'"]),
    ({"a": entry(0, 0, shape=[0, 2**62, 2**62]), "b": entry(0, 8)}, ["'a'"]),
    ({"a": entry(0, 8, shape=[1] * 70 + [8])}, ["'a'"]),
    ({"__metadata__": {"k": 1}, "a": entry(0, 8)}, ["__metadata__"]),
])
def test_malformed_headers_name_file_and_tensor(tmp_path, header, words):
    path = raw_file(tmp_path / "bad.safetensors", header, bytes(8))
    with pytest.raises(ValueError) as error:
        read_safetensors(path)
    assert all(word in str(error.value) for word in ["bad.safetensors", *words]), error.value


@pytest.mark.parametrize("data", [b"", b"1234567", (100).to_bytes(8, "little") + b"{}", b"\xff" * 16])
def test_short_files_and_long_headers(tmp_path, data):
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="bad.safetensors"):
        read_safetensors(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("tensors, word", [({"z": np.zeros(2, np.complex64)}, "complex64"),
                                           ({"__metadata__": np.zeros(2)}, "__metadata__"), ({3: np.zeros(2)}, "3")])
def test_what_cannot_be_written(tmp_path, tensors, word):
    with pytest.raises(ValueError, match=word):
        write_safetensors(tmp_path / "x", tensors)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def sample_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "x"
    write_safetensors(path, sample_tensors(), {"format": "pt"})
    return path.read_bytes()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(cut=st.integers(0, 10**6))
def test_every_truncation_is_refused(tmp_path_factory, sample_bytes, cut):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(sample_bytes[:cut % len(sample_bytes)])
    with pytest.raises(ValueError, match="cut"):
        read_safetensors(path)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(place=st.integers(0, 10**6), flips=st.lists(st.integers(1, 255), min_size=1, max_size=3))
def test_flipped_header_bytes_read_or_raise_value_error(tmp_path_factory, sample_bytes, place, flips):
    end = 8 + int.from_bytes(sample_bytes[:8], "little")
    damaged = bytearray(sample_bytes)
    for i, flip in enumerate(flips):
        damaged[(place + i) % end] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(damaged)
    try:
        tensors, _ = read_safetensors(path)
    except ValueError as error:
        assert "flipped" in str(error)
    else:
        assert sum(array.nbytes for array in tensors.values()) == len(damaged) - end   # still tiles the data


@settings(derandomize=True, deadline=None, max_examples=50)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_flipped_data_bytes_change_only_values(tmp_path_factory, sample_bytes, place, flip):
    begin = 8 + int.from_bytes(sample_bytes[:8], "little")
    damaged = bytearray(sample_bytes)
    damaged[begin + place % (len(damaged) - begin)] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(damaged)
    tensors, expected = read_safetensors(path)[0], sample_tensors()
    changed = [n for n in expected if not same_bits(tensors[n], expected[n])]
    assert len(changed) == 1 and {n: (a.shape, a.dtype) for n, a in tensors.items()} == {
        n: (a.shape, a.dtype) for n, a in expected.items()}


def test_safetensors_library_both_ways(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    write_safetensors(tmp_path / "ours", sample_tensors(), {"format": "pt"})
    assert_same_bits(library.load_file(tmp_path / "ours"), sample_tensors())
    library.save_file(sample_tensors(), tmp_path / "theirs", {"format": "pt"})
    tensors, metadata = read_safetensors(tmp_path / "theirs")
    assert_same_bits(tensors, sample_tensors())
    assert metadata == {"format": "pt"}


def test_bfloat16_is_widened_as_torch_does(tmp_path):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    values = torch.tensor([0.0, -0.0, 1.0, -3.14159, 1e-40, 3e38, float("inf"), float("-inf")]).bfloat16().reshape(2, 4)
    library.save_file({"x": values}, tmp_path / "x")
    array = read_safetensors(tmp_path / "x")[0]["x"]
    assert_same_bits(array, values.float().numpy())
    assert not array.flags.writeable
