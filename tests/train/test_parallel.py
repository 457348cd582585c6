"""Ranks that train together: what each sends, adds and keeps, without MPI: ranks are threads here.

tests/train/test_mpiexec.py does the same with real processes where mpi4py is installed.
"""
import threading
from queue import Queue

import numpy as np
import pytest

from minillm import GPT, AdamW, GPTConfig, Llama, LlamaConfig, select
from minillm.config import TrainConfig
from minillm.models.packing import Batch
from minillm.train import parallel
from minillm.train.loop import evaluate, one_step, train

TINY = GPTConfig(n_layer=3, n_head=2, n_embd=16, block_size=16, vocab_size=50, dropout=0.1)
LLAMA = LlamaConfig(family="qwen3", n_layer=3, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, n_inner=24, block_size=16,
                    vocab_size=50, qk_norm=True)


class Message:
    """A request of mpi4py's kind: done as soon as its message is there."""

    def __init__(self, box=None, into=None):
        self.box, self.into = box, into

    def Test(self):
        if self.box is None or self.box.empty():
            return self.box is None
        self.into[...] = self.box.get()
        self.box = None
        return True


class Comm:
    """One end of messages between threads, as mpi4py's communicator has them."""

    def __init__(self, rank, size, boxes):
        self.rank, self.size, self.boxes, self.aborted = rank, size, boxes, False

    def box(self, *key):
        return self.boxes.setdefault(key, Queue())

    def Isend(self, array, rank, tag):
        assert array.flags.c_contiguous
        self.box(self.rank, rank, tag).put(array.copy())
        return Message()

    def Irecv(self, array, rank, tag):
        return Message(self.box(rank, self.rank, tag), array)

    def Abort(self, code):
        self.aborted = True


def worlds(size):
    boxes = {}
    return [parallel.World(Comm(rank, size, boxes)) for rank in range(size)]


def on_ranks(size, work):
    """The results of work(world) on so many threads; the first error of any is raised."""
    results, errors = [None] * size, []

    def run(world):
        try:
            results[world.rank] = work(world)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=run, args=(world,), daemon=True) for world in worlds(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
    return results


class Data:
    """Batches as functions of (step, micro); some targets are not learned."""

    fingerprint, validation_tokens, validation_bytes = "d", 7 * 16, 7 * 16

    def batch(self, step, micro=0):
        rng = np.random.default_rng((step, micro))
        tokens, targets = rng.integers(0, 50, (2, 2, 16))
        return Batch(tokens, np.where(rng.random((2, 16)) < 0.1 * micro, -1, targets))

    def validation(self, batches=0):
        return (self.batch(99, micro) for micro in range(7))


@pytest.fixture
def small_units(monkeypatch):
    """Units of 1,024 numbers, so that a tiny model has several for each rank."""
    for module in (parallel, __import__("minillm.ops.optimizer.sum_squares", fromlist=["PIECE"])):
        monkeypatch.setattr(module, "PIECE", 256)
    monkeypatch.setattr(parallel, "UNIT", 1024)


def steps_of(kind, config, optimizer_of, settings, backend="numpy", steps=3):
    model = kind(config, ops=select(backend))
    optimizer, rows = optimizer_of(model), []
    for step in range(steps):
        rows.append(one_step(model, optimizer, Data(), settings, {"step": step}))
    moments = optimizer.whole_moments()
    return model.params.flat, moments, [(row["train_loss"], row["grad_norm"]) for row in rows]


@pytest.mark.parametrize("size, accumulate", [(2, 2), (2, 5), (3, 4), (5, 5)])
@pytest.mark.parametrize("kind, config", [(GPT, TINY), (Llama, LLAMA)])
def test_ranks_take_the_very_steps_of_one_process(small_units, size, accumulate, kind, config):
    settings = TrainConfig(accumulate=accumulate, warmup=0, clip=0.1)
    alone, (m, v), rows = steps_of(kind, config, lambda model: AdamW(model.params, settings.lr, ops=model.ops),
                                   settings)
    for rank, (flat, moments, theirs) in enumerate(on_ranks(size, lambda world: steps_of(
            kind, config, lambda model: parallel.sharded(world, model, settings), settings))):
        assert np.array_equal(flat, alone) and theirs == rows
        if rank == 0:
            assert np.array_equal(moments[0].flat, m.flat) and np.array_equal(moments[1].flat, v.flat)
        else:
            assert moments is None


class Seen:
    """In place of the queue of finished units: what each was at that moment."""

    def __init__(self, grads):
        self.grads, self.units = grads, {}

    def put(self, number):
        self.units[number] = None if number is None else self.grads.flat[self.grads.units[number]].copy()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind, config", [(GPT, TINY), (Llama, LLAMA)])
def test_a_gradient_that_is_on_its_way_is_done(small_units, kind, config, recompute):
    """No unit changes after it is told to be done, in whatever order the backward goes."""
    model, batch = kind(config), Data().batch(0)
    model.recompute = recompute
    grads = parallel.Sending(model.params.shapes, np.float32, parallel.units_of(model.params.flat.size))
    grads.done = seen = Seen(grads)
    grads.begin()
    model.loss_and_grads(batch.tokens, batch.targets, key=(0, 0, 0), grads=grads)
    assert len(seen.units) > len(grads.units) / 2                       # most leave while the backward goes on
    assert all(np.array_equal(found, grads.flat[grads.units[number]]) for number, found in seen.units.items())
    grads.finish_all()
    assert set(seen.units) == {*range(len(grads.units)), None}


def test_each_rank_keeps_its_share_and_sends_no_more_than_it_must(small_units):
    settings, size = TrainConfig(accumulate=4, warmup=0), 2

    def work(world):
        model = GPT(TINY, ops=select("numpy"))
        optimizer = parallel.sharded(world, model, settings)
        one_step(model, optimizer, Data(), settings, {"step": 0})
        return optimizer.m.nbytes, world.sent, model.params.flat.nbytes
    (kept, sent, all_bytes), (others, _, _) = on_ranks(size, work)
    assert kept + others == all_bytes and abs(kept - others) <= 4 * parallel.UNIT
    least = all_bytes * (size - 1) / size * (settings.accumulate / size + 1)
    assert least * 0.9 < sent < least * 1.1 + 4096                       # units are not halves to the byte


def test_validation_is_shared(small_units):
    model = GPT(TINY)
    alone = evaluate(model, Data().validation())
    assert on_ranks(3, lambda world: evaluate(model, Data().validation(), world)) == [alone] * 3


def test_a_run_goes_on_with_another_number_of_ranks(small_units, tmp_path, monkeypatch):
    monkeypatch.setattr("minillm.train.loop.stop_signals", __import__("contextlib").nullcontext)  # threads have none
    monkeypatch.setattr("minillm.train.loop.exclusive", __import__("contextlib").nullcontext)

    def run(out, steps, size):
        settings = TrainConfig(steps=steps, accumulate=3, eval_every=2, save_every=2, warmup=1, backend="numpy",
                               schedule="wsd", decay=0.0)              # a rate that does not depend on steps

        def work(world):
            model = GPT(TINY, ops=select("numpy"))
            return train(model, Data(), settings, tmp_path / out, world=world)["step"]
        assert on_ranks(size, work) == [steps] * size if size > 1 else work(None) == steps
    run("alone", 6, 1)
    run("ranks", 2, 3)
    run("ranks", 4, 2)
    run("ranks", 6, 1)
    for name in ("last/model.safetensors", "last/optimizer.safetensors", "model.safetensors", "gradients.csv"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "ranks" / name).read_bytes(), name


def test_a_silent_rank_ends_the_run_and_is_named(capfd):
    world = worlds(3)[0]
    world.patience = 0.05
    with pytest.raises(SystemExit):
        world.gather([1.0])
    assert world.comm.aborted
    assert "rank 0: nothing heard from rank 1, 2 for 0.05 seconds" in capfd.readouterr().err


def test_what_ranks_cannot_share_is_named():
    world, model = worlds(3)[0], GPT(TINY)
    with pytest.raises(ValueError, match="train.accumulate must be at least the number of processes, 3.*got 2"):
        parallel.sharded(world, model, TrainConfig(accumulate=2))
    with pytest.raises(ValueError, match="train.optimizer=muon"):
        parallel.sharded(world, model, TrainConfig(accumulate=3, optimizer="muon"))


def test_mpiexec_without_mpi4py_is_named(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(__import__("sys").modules, "mpi4py", None)
    parallel.all_ranks.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'minillm\[mpi\]'"):
        parallel.all_ranks()
    parallel.all_ranks.cache_clear()
    monkeypatch.setenv("PMI_SIZE", "1")
    assert parallel.all_ranks() is None
    parallel.all_ranks.cache_clear()
