"""The emulator of anybody's CUDA (csrc/cuda/emulator/anybody): right kernels compute and are left in peace, faults are
named with their line."""
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minillm.kernels.own.emulator import HEADERS, build, findings

SOURCE = Path(__file__).parent / "anybody_faults.cpp"
LINES = SOURCE.read_text().splitlines()

if not shutil.which("g++") or not shutil.which("addr2line") or not HEADERS.exists():
    pytest.skip("needs g++, addr2line and the sources in csrc", allow_module_level=True)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anybody")
    build(SOURCE, folder / "faults", executable=True, compiler="g++")

    def call(which, seed=0):
        """(the array `out`, the findings, the name of CUDA's error) of one case."""
        log = folder / f"{which}{seed}"
        done = subprocess.run([str(folder / "faults"), which, str(seed)], capture_output=True, text=True, timeout=600,
                              env=dict(os.environ, MINILLM_CUDA_REPORT=str(log)))
        return np.array(done.stdout.split(), "f4"), findings(log), done.stderr.strip()
    return call


X = np.arange(256, dtype="f4")
RIGHT = {
    "tree": lambda: X.sum(),
    "warps": lambda: X.sum(),
    "groups": lambda: X[:96].reshape(-1, 8).sum(1),
    "copies": lambda: X[::-1],
    "inline_ptx": lambda: np.exp2(X / 64) + (X % 32 < 4),
    "halves": lambda: (2 * X).astype("f2").view("f4"),
    "partial": lambda: np.where(np.arange(40) < 32, 32, 4) + np.full(40, 20),
    "spin": lambda: 120,
    "whole_grid": lambda: X[159::-1],
    "allowed_shared": lambda: 0,
    "looked_at": lambda: 0,
    "in_bounds": lambda: 0,
    "warpgroups": lambda: 0,
}


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("which", RIGHT)
def test_right_kernels_compute_and_nothing_is_found(run, which, seed):
    out, found, error = run(which, seed)
    right = np.atleast_1d(RIGHT[which]())
    told = [str(item) for item in found if item.severity != "slow" and item.kind != "partial warp"]
    assert not told and error == ("" if which == "looked_at" else "cudaSuccess")
    np.testing.assert_allclose(out[:len(right)], right, rtol=1e-6)


def test_the_last_block_sees_what_the_others_left(run):
    out, found, _ = run("last_block")
    assert out[1] == X[:5].sum() and not found


def test_matmuls_of_wmma_and_of_ptx(run):
    out, found, _ = run("matrices")
    x = (X / 16 - 8).astype("f2").astype("f4").reshape(16, 16)
    np.testing.assert_allclose(out[:256].reshape(16, 16), x @ x.T, rtol=1e-5)
    assert not out[256:384].any() and not [item for item in found if item.severity == "error"]


def test_coalesced_threads_are_those_of_the_branch(run):
    assert run("groups")[0][200] == 32


@pytest.mark.parametrize("which, kind, words", [
    ("past_the_end", "out of bounds", "writes 4 bytes right past the end of device array 2"),
    ("before_the_beginning", "out of bounds", "4 bytes before the beginning of device array 1"),
    ("past_shared", "out of bounds", "right past the end of `s`|extern __shared__"),
    ("index_of_a_row", "out of bounds", "index 16"),
    ("no_barrier", "race", "of the same block writes it"),
    ("no_second_barrier", "race", "of the same block reads it"),
    ("no_syncwarp", "race", "of the same block"),
    ("no_syncwarp_before_wmma", "race", "of the same block"),
    ("blocks_collide", "race", "of another block"),
    ("no_lock_fence", "race", "of the same block"),
    ("uninitialised", "uninitialised", "before anybody wrote them"),
    ("copy_without_wait", "uninitialised", "before anybody wrote them"),
    ("barrier_in_a_branch", "deadlock", "others that do not come"),
    ("two_barriers", "divergence", "others at"),
    ("early_return", "divergence", "have left the kernel"),
    ("wrong_mask", "divergence", "leaves it out"),
    ("missing_lane", "undefined lane", "asks for the value of lane"),
    ("endless", "hang", "endless still runs after"),
    ("misaligned", "misaligned", "writes 16 bytes at once"),
    ("null_pointer", "host memory", "null pointer"),
    ("overflows", "overflow", "256 * 16777216 does not fit into 'int'"),
    ("too_much_shared", "shared memory", "52000 bytes of shared memory"),
    ("unknown_ptx", "unsupported", "wgmma.fence"),
    ("many_threads", "launch", "at most 1024 threads"),
    ("empty_grid", "launch", "grid is empty"),
    ("beyond_bounds", "launch", "`__launch_bounds__(N / 2)` in line 7 allows 128 threads a block: got 256"),
    ("many_registers", "launch", "gives 1024 threads 256 registers each, 262144 in all: a block has 65536"),
    ("no_sum", "registers", "hold 67584 registers or more; it was launched with 65536, 128 a thread"),
    ("unbounded", "registers", "ignored by ptxas"),
    ("not_by_eight", "registers", "setmaxnreg.dec from 128 to 100"),
    ("dynamic_shared", "launch", "need cudaFuncSetAttribute"),
    ("device_on_host", "device memory", "the host reads"),
    ("long_copy", "out of bounds", "cudaMemcpy writes"),
    ("double_free", "double free", "freed before"),
])
def test_faults_are_named_with_their_line(run, which, kind, words):
    errors = [item for item in run(which)[1] if item.severity == "error"]
    assert any(item.kind == kind and any(word in item.text for word in words.split("|")) and
               item.line and f"FAULT {which}" in LINES[item.line - 1] for item in errors), list(map(str, errors))


@pytest.mark.parametrize("which, kind, severity", [
    ("columns", "bank conflicts", "slow"), ("scattered", "uncoalesced", "slow"), ("same_value", "same value", "note"),
    ("unchecked", "unchecked launch", "note"), ("not_looked_at", "unchecked launch", "note"),
    ("full_mask", "partial warp", "note")])
def test_what_is_slow_or_careless_is_no_error(run, which, kind, severity):
    found = run(which)[1]
    assert not [item for item in found if item.severity == "error"]
    assert [item for item in found if (item.kind, item.severity) == (kind, severity)
            and f"FAULT {which}" in LINES[item.line - 1]], list(map(str, found))


def test_other_memory(run):
    assert "no device memory" in str(run("host_pointer")[1]) and "device array 1" in str(run("freed_memory")[1])
    assert [item.kind for item in run("leak")[1]] == ["leak"]


def test_errors_come_back_from_the_api(run):
    assert run("many_threads")[2] == "cudaErrorInvalidConfiguration"
    assert run("beyond_bounds")[2] == "cudaErrorInvalidValue"
    assert run("many_registers")[2] == "cudaErrorLaunchOutOfResources"
    assert run("deadlock_of_none")[2] == "cudaSuccess"
    assert run("long_copy")[2] == "cudaErrorInvalidValue"
