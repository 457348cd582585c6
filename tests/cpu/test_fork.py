"""A child made by fork after kernels, tokenizer and deduplication ran with several threads goes on with them,
and so does its parent: nobody waits for threads that only the parent has."""
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from minillm.data.dedup.minhash import Lsh, signatures_of
from minillm.kernels.select import choices, select
from minillm.tokenizer import Tokenizer
from minillm.tokenizer.fast import load_extension

SECONDS = 60            # for what takes one
pytestmark = [pytest.mark.skipif("cpu" not in choices("attention"), reason="no kernels are built"),
              pytest.mark.filterwarnings("ignore::DeprecationWarning")]         # Python's own, of fork beside threads
unsanitized = pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""),
                                 reason="its allocator's locks are free in a child only since llvm/llvm-project#75290")
TEXTS = [f"{i} words of text {i * i} " * 20 for i in range(64)]
needs = {name: pytest.mark.skipif(load_extension(name=name) is None, reason=f"no {name}") for name in ("text", "data")}


@pytest.fixture(autouse=True)
def two_threads():
    from minillm.kernels.select import _cpp
    before = _cpp.max_threads()
    _cpp.set_threads(2)
    yield _cpp
    _cpp.set_threads(before)


def kernels():
    """The bytes of what parallel regions of several kinds make."""
    ops, rng = select("cpu"), np.random.default_rng(0)
    x, w = (rng.standard_normal((256, 256)).astype("float32") for _ in range(2))
    out, cache = ops.linear_forward(x, w, w[0].copy())
    return [a.tobytes() for a in (out, *ops.linear_backward(out, cache), ops.gelu_forward(x)[0],
                                  ops.attention_forward(rng.standard_normal((2, 128, 192)).astype("float32"), 4)[0])]


def tokenizer():
    return TOKENIZER[0].encode_batch(TEXTS, threads=2)


def dedup():
    return signatures_of(TEXTS, Lsh(bands=8, rows=4), threads=2)[0].tobytes()


TOKENIZER = []
WORK = [kernels, pytest.param(tokenizer, marks=needs["text"]), pytest.param(dedup, marks=needs["data"])]


@pytest.fixture(autouse=True)
def trained():
    if not TOKENIZER:
        TOKENIZER.append(Tokenizer.train(TEXTS, vocab_size=300))


def in_child(check):
    """Does check() hold in a forked child, within the time? The child is killed if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError("the child hangs")


@pytest.mark.parametrize("work", WORK)
def test_child_grandchild_and_parent_go_on(work):
    want = work()
    assert in_child(lambda: work() == want and in_child(lambda: work() == want) and work() == want)
    assert work() == want


def test_threads_are_kept_in_parent_and_child(two_threads):
    """LLVM's OpenMP begins anew in the child, with as many as usual."""
    kernels()
    usual = int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
    assert in_child(lambda: two_threads.max_threads() in (2, usual))
    assert two_threads.max_threads() == 2


@pytest.mark.parametrize("work", WORK)
def test_pool_of_processes(work):
    want = work()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert [pool.apply_async(work).get(timeout=SECONDS) for _ in range(4)] == 4 * [want]


@unsanitized
@pytest.mark.parametrize("work", WORK)
def test_fork_while_another_thread_is_at_work(work):
    """Whatever lock that thread holds at the moment, the child has it free."""
    want, stop = work(), threading.Event()

    def keep_on():
        while not stop.is_set():
            work()

    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: work() == want)
    finally:
        stop.set()
        thread.join()


@unsanitized
@needs["text"]
def test_fork_while_another_thread_encodes_short_texts():
    """Where an encoder's lock is taken most often."""
    encode, stop = TOKENIZER[0].encode, threading.Event()
    thread = threading.Thread(target=lambda: [encode("ab") for _ in iter(stop.is_set, True)])
    thread.start()
    try:
        for _ in range(50):
            assert in_child(lambda: encode("abc") == encode("abc"))
    finally:
        stop.set()
        thread.join()


def test_training_goes_on_in_a_child():
    """A whole step: what a pool of workers or a debugger's fork would run."""
    script = """if True:
        import os, numpy as np
        from minillm import GPT, GPTConfig, AdamW
        model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=500))
        tokens = np.arange(8 * 64).reshape(8, 64) % 500
        step = lambda: model.loss_and_grads(tokens, tokens)[0]
        loss = step()
        child = os.fork()
        assert step() == loss
        if child: assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=SECONDS,
                   env=os.environ | {"OMP_NUM_THREADS": "2"})
