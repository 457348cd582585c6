"""Fresh measurements for the tables: each kernel beside NumPy, and what could not be timed with its reason."""
import pytest

from minillm.ops.table import Dims
from minillm.study.book import live
from minillm.study.book.blocks import Paragraph, Table, plain
from minillm.study.book.measurements import measurement_blocks
from minillm.workbench.kernel.check import Refused

ROW = {"ms": {"yours": {"warm": 2.0, "cold": 9.0}, "numpy": {"warm": 8.0, "cold": 9.0}}, "gflops": 40.0, "gbs": 20.0,
       "dims": {"B": 4, "T": 8}, "peak_gflops": 100.0, "peak_gbs": 50.0, "bound": "memory", "floor_ms": 1.0}


def test_rows_of_the_bench_as_rows_of_the_table(monkeypatch):
    asked = []
    monkeypatch.setattr(live, "choices", lambda op, dtype: ["numpy", "cpu", "cpu/bf16", "cudasim"])
    monkeypatch.setattr(live, "bench_kernel", lambda kernel, against, dims, rounds: asked.append(
        (kernel.name, kernel.entrant, against)) or ROW)
    found = live.measure(["gelu"])["gelu"]
    assert asked == [("gelu_forward", "cpu", ["numpy"]), ("gelu_backward", "cpu", ["numpy"])]
    numbers = [(row["candidate"], row["direction"], row["median_ms"], row["gflops"], row["peak_percent"])
               for row in found.rows]
    assert numbers == [(name, direction, ms, gflops, share) for direction in ("forward", "backward")
                       for name, ms, gflops, share in (("numpy", 8.0, 10.0, 12.5), ("cpu", 2.0, 40.0, 50.0))]
    (table,) = measurement_blocks("gelu", "gelu", {"gelu": found})
    assert isinstance(table, Table) and [plain(cell) for cell in table.rows[2]] == [
        "C++", "forward", "2.000", "40.0", "20.0", "50", "memory"]


def test_what_is_refused_is_said(monkeypatch):
    def refused(*_, **__):
        raise Refused("roofline", "faster than this machine can")
    monkeypatch.setattr(live, "bench_kernel", refused)
    found = live.measure(["sum_squares"])
    (words,) = measurement_blocks("sum_squares", "sum-squares", found)
    assert isinstance(words, Paragraph) and "faster than this machine can" in plain(words.spans)


def test_an_unknown_op():
    with pytest.raises(ValueError, match="ops must be among .*got nothing"):
        live.measure(["nothing"])


def test_a_real_one():
    pytest.importorskip("cffi")                              # which the bench's process binds kernels with
    found = live.measure(["sum_squares"], dims=Dims(B=1, T=8, C=16, NH=2, V=32), rounds=2)["sum_squares"]
    assert found.skipped or {row["candidate"] for row in found.rows} >= {"numpy"}
    assert all(row["median_ms"] > 0 for row in found.rows) and found.machine["numpy"]
