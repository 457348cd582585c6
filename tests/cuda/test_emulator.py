"""The GPU emulator itself (csrc/cuda/emulator): it must be unkind, and name the line of each fault."""
import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minillm.kernels import select as registry

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
SOURCE = HERE / "cuda_faults.cpp"
# no-gnu-unique: else the inline variables of every emulator that this process loads would be one
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fno-gnu-unique", "-I", str(SOURCES)]
WATCHED = SOURCES / "cuda" / "emulator" / "watched" / "watched.cpp"
KERNELS = re.findall(r"\w+(?:<[\w, ]+>)?", re.search(r"kernels\[\].*?= \{(.*?)\};", SOURCE.read_text(), re.DOTALL)[1])
GOOD, RUN_AHEAD, AT_ONCE = 0, 9, 2                          # schedules: emulator/settings.h, `seed`

if not shutil.which("g++") or not SOURCES.exists():
    pytest.skip("needs g++ and the sources in csrc", allow_module_level=True)


def compiled(folder, *flags, watched=False):
    """A function that runs one kernel. watched: ordinary loads and stores of shared memory, too."""
    library = folder / "faults.so"
    seen = ["-fsanitize=thread", "-fno-threadsafe-statics"] if watched else []
    subprocess.run(["g++", *FLAGS, *flags, *seen, "-c", str(SOURCE), "-o", str(folder / "faults.o")], check=True)
    more = [*seen[1:], str(WATCHED)] if watched else []
    subprocess.run(["g++", *FLAGS, "-shared", *more, str(folder / "faults.o"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    run = loaded.run
    run.restype = ctypes.c_char_p
    run.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_size_t]

    def call(kernel, seed=GOOD, grid_y=1, threads=64, shared=256):
        """(data after, error text) of one kernel over the numbers 0 .. 63."""
        data = np.arange(64, dtype="float32")
        text = run(KERNELS.index(kernel), seed, data.ctypes.data, grid_y, threads, shared).decode()
        return data, text
    call.library = loaded
    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("faults"), watched=True)


def line_of(text):
    """The line of the first occurrence in the fault file, as the emulator names it."""
    number = 1 + SOURCE.read_text().split(text)[0].count("\n")
    return f"cuda_faults.cpp:{number}"


@pytest.mark.parametrize("seed", [0, 8, 9, 31])
@pytest.mark.parametrize("kernel, words, line", [
    ("barrier_in_a_branch", "deadlock", "if (threadIdx.x < 7) __syncthreads();"),
    ("two_barriers", "divergence", "else __syncthreads();"),
    ("exchange_in_a_branch", "deadlock", "if (threadIdx.x % 2) out"),
    ("half_a_shuffle", "all 32 lanes", "__shfl_xor_sync(0xffffu"),
    ("misaligned_load", "load4.*not a multiple of 16", "load4(out + 1)"),
    ("misaligned_copy", "cp_async to.*not a multiple of 16", "cp_async<16>"),
    ("misaligned_ldmatrix", "ldmatrix.*not a multiple of 16", "ldmatrix(r"),
    ("past_shared_memory", "outside its shared memory", ""),
    ("past_the_array", "past the last element", ""),
    ("before_the_array", "before the first element", ""),
    ("unwritten_past_the_array", "past the last element", ""),
    ("unwritten_past_shared_memory", "outside its shared memory", ""),
    ("one_too_many_loaded_and_stored", "past the last element", ""),
])
def test_faults_are_named(run, kernel, words, line, seed):
    _, error = run(kernel, seed)
    assert re.search(words, error), error or "no error"
    assert not line or line_of(line) in error, error


@pytest.mark.parametrize("sizes, words", [
    ({"threads": 48}, "whole warps"), ({"threads": 2048}, "1 to 32 whole warps"), ({"grid_y": 65536}, "grid"),
    ({"shared": 228 << 10}, "232448 bytes of shared memory: got 233472"),
], ids=str)
def test_sizes_of_the_hardware(run, sizes, words):
    assert words in run("nothing", **sizes)[1]
    assert run("nothing") [1] == ""


def test_a_race_shows_under_some_schedule(run):
    """The fair order happens to be right for one half; a warp that runs ahead reads what nobody has written: NaN."""
    results = [run("race", seed)[0] for seed in (GOOD, RUN_AHEAD)]
    assert any(np.isnan(data).any() for data in results)


def test_copies_land_late_and_early(run):
    late, early = run("copy_without_wait", GOOD)[0], run("copy_without_wait", AT_ONCE)[0]
    assert np.isnan(late).all()                             # not waited for: shared memory is still NaN
    assert np.array_equal(early, np.arange(64))
    mixed = np.isnan(run("copy_without_wait", 4)[0])
    assert mixed.any() and not mixed.all()


@pytest.mark.parametrize("seed", range(9))
def test_copies_that_are_waited_for(run, seed):
    data, error = run("copy_with_wait", seed)
    want = np.arange(64) + 1
    want[5] = 1                                             # not valid: zero was copied
    assert not error and np.array_equal(data, want)


def hopper(run, kernel, seed=GOOD):
    return run(kernel, seed, threads=128, shared=1024 + 2048)


@pytest.mark.parametrize("seed", [0, 9, 31, 42])
@pytest.mark.parametrize("kernel, words, line", [
    ("tma_too_much_expected", "deadlock", "if (wait) barrier_wait"),
    ("tma_before_fence", "cannot see this barrier before a fence", "tma_load(reinterpret"),
    ("tma_misaligned", "tma_load to.*not a multiple of 128", "tma_load(reinterpret"),
    ("tma_past_shared", "tma_load.*outside shared memory", "tma_load(reinterpret"),
    ("barrier_not_made", "it was not initialised", "barrier_arrive(&s->other)"),
    ("too_many_arrivals", "more arrivals than it counts", "if (threadIdx.x == 0) barrier_expect(&s->barrier, 16), "),
    ("wrong_phase", "deadlock", "barrier_wait(&s->barrier, 1);"),
    ("matmul<NO_FENCE>", "no wgmma_fence", "wgmma_rs<bf16>"),
    ("matmul<WARPS_DIFFER>", "four warps of a warpgroup differ", "wgmma_rs<bf16>"),
    ("matmul<WAIT_NAMES_NOTHING>", "wgmma_wait does not name the sums", "wgmma_rs<bf16>"),
    ("matmul<WAIT_NAMES_NO_A>", "registers of A .* written again", "wgmma_rs<bf16>"),
    ("matmul<NO_SWIZZLE>", "must say 128-byte swizzle", ""),
    ("registers_from_nowhere", "256 a thread never come free.* with 248 for each of 128", "take_registers<256>"),
    ("registers_not_by_eight", "from 248 to 100", "keep_registers<100>"),
    ("registers_without_blocks", "ptxas ignores this without __launch_bounds__", "keep_registers<24>"),
    ("bounded<64, 1>", "__launch_bounds__ at .* allow 64, got 128", "LAUNCH_BOUNDS(MOST"),
    ("bounded<1024, 4>", "ask for 4096 threads on a multiprocessor, which holds 2048", "LAUNCH_BOUNDS(MOST"),
])
def test_faults_of_hopper_are_named(run, kernel, words, line, seed):
    _, error = hopper(run, kernel, seed)
    assert re.search(words, error), error or "no error"
    assert not line or line_of(line) in error, error


@pytest.mark.parametrize("kernel, words", [
    ("matmul<TOUCHED>", "sums of a matmul under way were touched"),
    ("matmul<OPERAND_CHANGED>", "registers of a matmul under way were written"),
    ("matmul<NOT_WAITED>", "were under way"),
    ("tma_without_wait", "were under way|"),
])
def test_late_units(run, kernel, words):
    """What is done late is found late; done at once it is right by luck."""
    data, error = hopper(run, kernel)
    assert re.search(words, error) and (error or np.isnan(data[:32]).all())
    assert not hopper(run, kernel, AT_ONCE)[1] or kernel == "matmul<TOUCHED>"


@pytest.mark.parametrize("seed", [0, 8, 9, 10, 11, 12, 31, 42, 44])
def test_units_that_are_waited_for(run, seed):
    data, error = hopper(run, "tma", seed)
    assert not error and np.array_equal(data[:32], np.arange(32))
    data, error = hopper(run, "matmul<RIGHT>", seed)
    assert not error and (data == 16).all()


def test_what_is_not_waited_for_is_not_there(run):
    assert np.isnan(hopper(run, "matmul<READ_EARLY>")[0]).all()
    assert np.isnan(hopper(run, "matmul<NO_PROXY_FENCE>")[0]).all()       # stored by threads, not published
    halves = [hopper(run, "tma_half_expected", seed)[0][:32] for seed in range(8, 60)]
    assert any(np.isnan(data).any() for data in halves)                  # the other half landed first


def test_a_fence_covers_the_stores_of_its_own_thread(run):
    """One thread's fence does not publish what the others have stored."""
    assert np.isnan(hopper(run, "matmul<ONE_FENCES>")[0]).all()


@pytest.mark.parametrize("kernel, lost", [
    ("strided<1, 1>", 0), ("strided<32, 1>", 2 * 2 * 31), ("strided<2, 1>", 2 * 2 * 1), ("strided<4, 4>", 0),
    ("strided<32, 4>", 2 * 2 * 4 * 7)])
def test_bank_conflicts_of_ordinary_loads_and_stores(run, kernel, lost):
    """Two warps store once and load once; 16 bytes are read by 8 lanes at a time."""
    take = run.library.take_ordinary_conflicts
    take.restype, worst = ctypes.c_int64, ctypes.c_int64()
    take(ctypes.byref(worst))
    assert not run(kernel, shared=4096)[1]
    assert take(ctypes.byref(worst)) == lost and bool(worst.value) == (lost > 0)


def test_the_module_is_built_without_the_watcher():
    """Which would make it slow, and its fences those of one thread."""
    sim = registry.cuda("cudasim")
    if sim is None:
        pytest.skip("minillm._cpp.cudasim is not built")
    assert b"__tsan_read4" not in Path(sim.__file__).read_bytes()


@pytest.mark.parametrize("which, words", [
    (0, ""), (1, ""), (2, "a launch takes an array"), (3, "a launch takes an array"), (4, "a copy reads an array"),
    (5, "a launch takes an array"), (6, "a release frees an array")])
def test_streams_wait_for_each_other(run, which, words):
    """What one stream has allocated or used, another may not touch or free before somebody has waited."""
    streams = run.library.streams
    streams.restype = ctypes.c_char_p
    error = streams(which).decode()
    assert error.startswith(words) and bool(error) == bool(words)


def test_swapcontext_does_the_same(tmp_path):
    """The portable fibers, for CPUs other than x86-64."""
    call = compiled(tmp_path, "-DEMU_UCONTEXT")
    assert np.array_equal(call("copy_with_wait", 9)[0][6:], np.arange(7, 65))
    assert "deadlock" in call("barrier_in_a_branch", 9)[1]
