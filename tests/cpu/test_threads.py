"""How many threads a kernel gets beside other work, and on which cores: csrc/cpu/isa/pace.h and apart.h.

The decision is tested with simulated calls, of which each takes as long as a rule says for the threads it got.
"""
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm.config import GPTConfig
from minillm.kernels import select as registry
from minillm.kernels.select import choices, select
from minillm.models.gpt2 import GPT

cpp = registry._cpp
pytestmark = pytest.mark.skipif("cpu" not in choices("attention"), reason="no kernels are built")
STEP = [1] * 40 + [8] * 4 + [3] * 20 + [30] * 2         # ms of the calls of a step with one thread


class Simulated:
    """Calls in turn; `rule(threads)` -> (times as long as with one thread, share that the calling thread lost)."""

    def __init__(self, all_threads, step=STEP):
        self.pace, self.all, self.calls = cpp.new_pace(), all_threads, [(k + 1, ms / 1e3) for k, ms in enumerate(step)]
        self.clock = 0.0

    def run(self, seconds, rule):
        """({threads: share of the time}, time / time of the same calls with one thread)."""
        spent, alone = {}, 0.0
        while sum(spent.values()) < seconds:
            for kind, one in self.calls:
                threads = cpp.pace_threads(self.pace, self.all)
                factor, lost = rule(threads)
                cpp.pace_add(self.pace, kind, one * factor, one * factor * lost)
                spent[threads] = spent.get(threads, 0) + one * factor
                alone += one
                self.clock += one * factor
        total = sum(spent.values())
        return {threads: time / total for threads, time in spent.items()}, total / alone


def quiet(threads):
    return threads ** -0.9, 0.05


def waits(threads):
    """Two threads beside a busy process, which meet too often."""
    return (1.6, 0.5) if threads > 1 else (1.0, 0.0)


def waits_but_gains(threads):
    return (0.7, 0.3) if threads > 1 else (1.0, 0.0)


@pytest.mark.parametrize("threads", [2, 4, 16])
def test_a_quiet_machine_gives_all_threads_to_every_call(threads):
    shares, _ = Simulated(threads).run(5, quiet)
    assert shares == {threads: 1}


@pytest.mark.parametrize("step", [STEP, [50], [400], [0.05] * 100, [0.1] * 500 + [100] * 3])
def test_long_waits_lead_to_one_thread_and_cost_little(step):
    """Trials included, a tenth more than with one thread, also where calls are long, tiny, or very unlike."""
    machine = Simulated(2, step)
    machine.run(2, waits)
    shares, slower = machine.run(20, waits)
    assert shares[1] > 0.85 and slower < 1.1


@pytest.mark.parametrize("step", [STEP, [50], [0.1] * 500 + [100] * 3])
def test_threads_that_wait_but_gain_are_kept(step):
    machine = Simulated(2, step)
    shares, slower = machine.run(20, waits_but_gains)
    assert shares[2] > 0.8 and slower < 1.1 * 0.7


@pytest.mark.parametrize("every, long", [(0.6, 0.05), (1.1, 0.12), (3.0, 0.3)])
def test_a_short_disturbance_costs_little_more_than_itself(every, long):
    """A trial beside an accident looks good; the check after it tells, or else the next trial comes soon."""
    machine = Simulated(2, [1] * 7 + [4, 2])
    shares, slower = machine.run(60, lambda threads: (waits if machine.clock % every < long else quiet)(threads))
    disturbed, calm = long / every, 1 - long / every
    assert shares[2] > 0.8 and slower < 1.1 / (calm / quiet(2)[0] + disturbed / waits(2)[0])


def test_all_threads_are_back_soon_after_the_load_ends():
    machine = Simulated(2)
    machine.run(10, waits)
    machine.run(2, quiet)
    assert machine.run(3, quiet)[0] == {2: 1}
    machine.run(1, waits)
    shares, slower = machine.run(5, waits)
    assert shares[1] > 0.7 and slower < 1.15


def test_many_threads_become_fewer_not_one():
    """16 cores, of which 3 are busy: more than 13 threads share cores, and all wait for those that do."""
    def three_busy(threads):
        return (2 / threads, 0.5) if threads > 13 else (1 / threads, 0.02)

    machine = Simulated(16)
    machine.run(2, three_busy)
    shares, slower = machine.run(20, three_busy)
    assert sum(share for threads, share in shares.items() if 9 <= threads <= 13) > 0.8 and slower < 1.3 / 13


def test_another_number_of_threads_begins_anew():
    machine = Simulated(2)
    machine.run(3, waits)
    machine.all = 4
    assert machine.run(2, quiet)[0] == {4: 1}
    machine.all = 1
    assert machine.run(1, lambda threads: (1.0, 0.0))[0] == {1: 1}


# ---- real threads ----

def busy_processes(n):
    return [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(n)]


def losses_and_gradients(ops):
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=101), ops=ops)
    tokens = np.random.default_rng(0).integers(0, 101, (4, 64))
    loss, grads = model.loss_and_grads(tokens, tokens)
    return np.array(loss), *(grads[name].copy() for name in sorted(grads))


@pytest.mark.parametrize("backend", ["cpu", "cpu/bf16"])
def test_bits_are_the_same_beside_busy_processes_and_whatever_threads_each_call_gets(backend):
    """The number of threads changes from call to call, as pace.h may change it."""
    class Changing:
        def __init__(self, ops):
            self.ops, self.call = ops, 0

        def __getattr__(self, name):
            value = getattr(self.ops, name)
            if not callable(value):
                return value
            self.call += 1
            cpp.set_threads(1 + self.call * self.call % 3)
            return value

    before = cpp.max_threads()
    cpp.set_threads(1)
    want = losses_and_gradients(select(backend))
    processes = busy_processes(2)
    try:
        cpp.set_threads(2)
        for _ in range(10):
            assert_same_bits(losses_and_gradients(select(backend)), want)
            assert 1 <= cpp.threads_now() <= cpp.max_threads() <= 2
        changing = Changing(select(backend))
        assert_same_bits(losses_and_gradients(changing), want)
        assert changing.call > 10
    finally:
        for process in processes:
            process.kill()
            process.wait()
        cpp.set_threads(before)


def product(size=256):
    ops, rng = select("cpu"), np.random.default_rng(0)
    x, weight = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    return ops.linear_forward(x, weight, weight[0].copy())[0]


def affinities():
    return {int(thread): os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}


linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds threads to cores")


@pytest.fixture
def two_threads():
    before = cpp.max_threads()
    for n in (1, 3, 2):                     # another number: what earlier tests made of the pace is forgotten
        cpp.set_threads(n)
        if cpp.max_threads() != n:
            pytest.skip("built without OpenMP")
        assert cpp.threads_now() == n
    yield
    cpp.set_threads(before)


@linux
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [])(0)) < 2, reason="one core")
def test_the_calling_thread_is_free_after_a_call_and_the_others_stay_off_its_core(two_threads):
    """In a new thread of Python, whose kernels have a pool of their own."""
    def work():
        known = set(affinities())
        out = product()
        started = [cores for thread, cores in affinities().items() if thread not in known]
        child = subprocess.run([sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"], check=True,
                               capture_output=True, text=True)
        found.append((out, os.sched_getaffinity(0), started, int(child.stdout)))

    before, found = os.sched_getaffinity(0), []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (out, own, started, child), = found
    assert own == before and child == len(before)
    of_llvm = "libomp" in Path("/proc/self/maps").read_text()           # which has one pool for all threads
    assert (started or of_llvm) and all(cores < before for cores in started)
    assert_same_bits(product(), out)
    assert os.sched_getaffinity(0) == before


@linux
def test_a_process_with_one_core_for_two_threads_works(two_threads):
    before = os.sched_getaffinity(0)
    out = product()
    try:
        for thread in affinities():
            os.sched_setaffinity(thread, {min(before)})
        assert_same_bits(product(), out)
        assert set(map(frozenset, affinities().values())) == {frozenset({min(before)})}
    finally:
        for thread in affinities():
            os.sched_setaffinity(thread, before)
    assert_same_bits(product(), out)
    assert os.sched_getaffinity(0) == before
