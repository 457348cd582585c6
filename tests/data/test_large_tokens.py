"""Ten gigabytes of tokens on a small machine: memory that does not grow with them, each block once an epoch, any place
found at once. The file is sparse: it has a size, but takes hardly any room on the disk."""
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minillm.data.shards.loader import Loader

ROOT = Path(__file__).resolve().parents[2]
BYTES, MEGABYTE = 10 ** 10, 10 ** 6


def sparse(path, size):
    """A file of zeros, or a skipped test where there is no room for it or holes are written out."""
    try:
        path.touch()
        os.truncate(path, size)
    except OSError as error:
        pytest.skip(f"no file of {size} bytes: {error}")
    if not hasattr(path.stat(), "st_blocks") or path.stat().st_blocks * 512 > size // 100:
        path.unlink()
        pytest.skip("the file system has no sparse files")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = sparse(tmp_path_factory.mktemp("large") / "train.bin", BYTES)
    yield path
    path.unlink()


def growth(code, path):
    """Megabytes by which the memory of a process grows at most while it runs the code on the file."""
    script = f"""
import resource, sys
from pathlib import Path
import numpy as np
from minillm.data.shards.format import check_file
from minillm.data.shards.loader import Loader, sequential
from types import SimpleNamespace
from minillm.data.shards.token_files import shards_of
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
path, before = Path({str(path)!r}), peak()
{code}
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")


@linux
def test_drawing_batches_takes_little_memory(large):
    """Of the 160 MB that are read here, none stay."""
    assert growth("""
load = Loader(np.memmap(path, "<u2", "r"), 2 ** 15, 8, seed=0)
for step in range(300):
    load.batch(step)
for batch in sequential(load.stream.arrays, 2 ** 15, 8, batches=10):
    pass
""", large) < 100


@linux
@pytest.mark.parametrize("code", [
    """
tokenizer = SimpleNamespace(vocab_size=300, eot_token=256, special_tokens={}, fingerprint="x",
                            token_bytes=lambda id: b"x")
assert shards_of([path], tokenizer).train.tokens == 95_000_000
""",
    """
try:
    check_file(300, np.memmap(path, "<u2", "r"), path, "that of other tokens")
except ValueError as error:
    assert "its checksum has changed" in str(error)
"""], ids=["token file", "shard"])
def test_checking_all_tokens_takes_little_memory(tmp_path, code):
    assert growth(code, sparse(tmp_path / "train.bin", 200 * MEGABYTE)) < 100


def test_any_place_is_found_at_once(large):
    """A hundred million steps in, an epoch's middle, its end: as fast as the first, and the same after a resume."""
    tokens = np.memmap(large, "<u2", "r")
    load, again = (Loader(tokens, 1024, 8, seed=3, micro_batches=2) for _ in range(2))
    assert load.blocks * 1024 == pytest.approx(BYTES / 2, rel=1e-6)
    steps = [0, load.blocks // 32, load.blocks // 16, 10 ** 8]
    starts = [load.block_start(first) for first in (16 * step for step in steps)]
    began = time.process_time()
    assert [again.block_start(16 * step) for step in reversed(steps)] == starts[::-1]
    assert again.batch(10 ** 8, 1)[0].shape == (8, 1024)
    assert time.process_time() - began < 0.5 and len(set(starts)) == 4


def test_each_block_once_an_epoch(large):
    """Blocks of a megabyte, so that an epoch has five thousand; they cover all without a gap."""
    load = Loader(np.memmap(large, "<u2", "r"), 2 ** 20, 1, seed=1)
    for epoch in range(2):
        starts = np.sort([load.block_start(epoch * load.blocks + i) for i in range(load.blocks)])
        assert starts[0] == 0 and starts[-1] + 2 ** 20 == load.targets and max(np.diff(starts)) <= 2 ** 20
        assert len(set(starts.tolist())) >= load.blocks - 1                 # those that would reach over an end
    few = Loader(np.memmap(large, "<u2", "r"), 64, 1, seed=1)               # of eighty million, these are all different
    assert len({few.block_start(i) for i in range(5000)}) == 5000


def test_the_tokens_are_those_of_the_file(large):
    """The tokens at places all over the ten gigabytes, far beyond 2^31, are read from there."""
    load = Loader(np.memmap(large, "<u2", "r"), 256, 4, seed=5)
    starts = [load.block_start(n) for n in range(4)]
    with open(large, "r+b") as file:
        for number, start in enumerate(starts, start=1):
            file.seek(2 * (start + 17))
            file.write(number.to_bytes(2, "little"))
    x, y = load.batch(0)
    assert x[:, 17].tolist() == y[:, 16].tolist() == [1, 2, 3, 4] and x.sum() == 10
    assert max(starts) > 2 ** 31
