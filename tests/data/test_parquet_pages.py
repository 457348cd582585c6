"""The sizes in the headers of a Parquet file's pages, which bound it whatever its footer says."""
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest

import minillm
from minillm.data.sources import containers
from minillm.data.sources.files import read_documents
from minillm.data.sources.parquet_pages import column_chunks, page_sizes
from minillm.data.sources.report import Report

PAGE = bytes([0x15, 0, 0x15, 20, 0x15, 8, 0x2C, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0]) + b"data"   # 10 bytes in 4


def sizes(data, length=None):
    return list(page_sizes(io.BufferedReader(io.BytesIO(data)), 0, len(data) if length is None else length))


def test_pages_one_after_the_other():
    assert sizes(PAGE) == [(10, 3)] and sizes(PAGE * 3) == [(10, 3)] * 3 and sizes(b"") == []


@pytest.mark.parametrize("data", [
    PAGE[:9], PAGE[1:], b"\x15\x00\x00", b"\x15" * 40, b"\x1c" * 40,                    # cut off, shifted, too deep
    bytes([0x15, 0, 0x11, 0x15, 8, 0]) + b"data",                                       # true instead of a size
    bytes([0x15, 0, 0x15, 21, 0x15, 8, 0]) + b"data", bytes([0x15, 0, 0x15, 20, 0x15, 9, 0]) + b"data",      # negative
    bytes([0x15, 0, 0x15, 20, 0x15, 8, 0x28, 1, 6, 0]) + b"data",                       # bytes instead of a struct
    b"\x19\xf7" + b"\xff" * 8 + b"\x01", b"\x18" + b"\xff" * 9 + b"\x01", b"\x19\xf9" * 40])         # endless lists
def test_damaged_headers(data):
    with pytest.raises(ValueError):
        sizes(data)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_of_what_pyarrow_writes(tmp_path, version):
    """Pages of both versions: their values are the column's, their sizes and headers its size."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, table = tmp_path / "a.parquet", arrow.table({"text": [f"text {i}" * 9 for i in range(5000)],
                                                       "tags": [["x", "y"] * (i % 3) for i in range(5000)]})
    parquet.write_table(table, path, data_page_version=version, data_page_size=9000, row_group_size=2000)
    with parquet.ParquetFile(path) as opened, open(path, "rb") as file:
        ours, meta = column_chunks(file), opened.metadata
        theirs = [meta.row_group(group).column(column) for group in range(meta.num_row_groups) for column in (0, 1)]
        assert ours == [(chunk.path_in_schema, 6, chunk.dictionary_page_offset, chunk.total_compressed_size,
                         chunk.num_values) for chunk in theirs] and len(ours) == 6
        for chunk, other in zip(ours, theirs):
            found = list(page_sizes(file, chunk.start, chunk.length))
            assert sum(values for _, values in found) == chunk.values
            assert 0 <= other.total_uncompressed_size - sum(size for size, _ in found) < 500 * len(found)
    assert len(list(read_documents(path))) == 5000


def test_a_footer_that_lies(tmp_path, monkeypatch):
    """The page says 40 MB; nothing is decompressed when the footer says less."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(containers, "LEAST", 2 ** 22)
    path, report = tmp_path / "a.parquet", Report()
    parquet.write_table(arrow.table({"text": ["a" * 40_000_000]}), path, compression="zstd", use_dictionary=False)
    with parquet.ParquetFile(path) as opened:
        size = opened.metadata.row_group(0).column(0).total_uncompressed_size

    def varint(number):
        number, data = number * 2, b""                                                       # zigzag
        while number > 127:
            data, number = data + bytes([number & 127 | 128]), number >> 7
        return data + bytes([number])
    whole = path.read_bytes()
    honest = varint(size)
    lie = bytes(byte & 128 for byte in honest[:-1]) + b"\x01"                                  # as many bytes
    path.write_bytes(whole.replace(honest, lie))
    with parquet.ParquetFile(path) as opened:
        assert opened.metadata.row_group(0).column(0).total_uncompressed_size < size
    with pytest.raises(ValueError, match="no usable text"):
        list(read_documents(path, report))
    assert report.skipped == {containers.BOMB: 1}


def test_damaged_files_end_no_run(tmp_path):
    """In a process of its own: pyarrow 26 aborts at some footers, if it is asked about their columns."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, rng = tmp_path / "a.parquet", random.Random(0)
    parquet.write_table(arrow.table({"text": [f"text {i}" for i in range(50)], "tags": [["a"] * 3] * 50}), path)
    whole = path.read_bytes()
    for number in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"b{number}.parquet").write_bytes(data)
    program = ("import sys; from minillm.data.sources.files import read_records; "
               "from minillm.data.sources.report import Report; report = Report(); "
               "list(read_records([sys.argv[1]], report)); print(sum(report.skipped.values()))")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False,
                          cwd=Path(minillm.__file__).parents[1])
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr
