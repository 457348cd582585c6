"""Nothing that a kernel computes is shared between threads by mistake: many threads, many times, the same bits.

The thread sanitizer does not see OpenMP's regions (tests/rebuilt.sh). So every compiled op is called again and again
with more threads than cores, which the system interrupts anywhere, and compared with one thread; and the sources have
no variables that could be shared.
"""
import re
from pathlib import Path

import numpy as np
import pytest
from cases import cases, outputs, pair, sample
from tolerances import assert_same_bits

from minillm.kernels import select as registry
from minillm.kernels.select import Dims
from minillm.ops.table import OPS

cpu = registry._cpp
if not cpu:
    pytest.skip("no kernels are built", allow_module_level=True)

SOURCES = Path(__file__).parents[2] / "csrc" / "cpu"
REPEATS, THREADS, SIZES = 12, (2, 4, 7), Dims(3, 70, 144, 3, 333)       # above the sizes that one thread does alone
every_kernel = pytest.mark.parametrize("op, backend, dtype", [
    case for case in cases(("pair", "decode", "update", "reduce"), compiled_only=True)
    if case.values[1].partition("/")[0] == "cpu"])


@pytest.fixture
def threads():
    before = cpu.max_threads()
    yield cpu.set_threads
    cpu.set_threads(before)


def run(op, backend, args):
    """All that the op computes."""
    if OPS[op].kind in ("pair", "decode"):
        return outputs(op, backend, args)
    copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in args.items()}
    return {"result": pair(op, backend)[0](**copies) or 0.0} | {
        name: value for name, value in copies.items() if isinstance(value, np.ndarray)}


@every_kernel
def test_more_threads_than_cores_change_no_bit(op, backend, dtype, threads):
    args = sample(op, dtype, SIZES)
    threads(1)
    want = run(op, backend, args)
    for repeat in range(REPEATS):
        threads(THREADS[repeat % len(THREADS)])
        assert_same_bits(run(op, backend, args), want, f"{op}, repetition {repeat}")


@pytest.mark.skipif(not SOURCES.exists(), reason="needs the sources")
def test_kernels_have_no_variables_that_threads_share():
    """A `static` without const or thread_local inside a function; the arena has a lock."""
    shared = re.compile(r"\s*static (?!const|inline).*;\s*(//.*)?$")
    found = {f"{path.name}: {line.strip()}" for path in SOURCES.rglob("*.[hc]*")
             for line in path.read_text().splitlines() if shared.match(line)}
    assert found == {"arena.h: static Arena* the_arena = new Arena;"}
