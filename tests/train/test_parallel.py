"""Ranks that train together: what each sends, adds and keeps, without MPI: ranks are threads here.

tests/train/test_mpiexec.py does the same with real processes where mpi4py is installed.
"""
import dataclasses
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ranks import on_ranks, worlds
from tolerances import assert_same_bits

from minillm import GPT, GPTConfig, Llama, LlamaConfig, select
from minillm.config import TrainConfig
from minillm.kernels.select import choices
from minillm.models.adapted import LoraModel
from minillm.models.packing import Batch
from minillm.models.params import block_matrices
from minillm.train import loop, parallel, sharded, units
from minillm.train.loop import evaluate, one_step, train
from minillm.train.optim import averaged, optimizer_for

TINY = GPTConfig(n_layer=3, n_head=2, n_embd=16, block_size=16, vocab_size=50, dropout=0.1)
LLAMA = LlamaConfig(family="qwen3", n_layer=3, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, n_inner=24, block_size=16,
                    vocab_size=50, qk_norm=True)


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
    for module in (sharded, __import__("minillm.ops.optimizer.sum_squares", fromlist=["PIECE"])):
        monkeypatch.setattr(module, "PIECE", 256)
    for module in (sharded, units):
        monkeypatch.setattr(module, "UNIT", 1024)


def steps_of(kind, config, optimizer_of, settings, bits=False, steps=3):
    model = kind(config, ops=select(settings.backend))
    optimizer, rows = optimizer_of(model), []
    if bits:
        optimizer.keep_bits()
    for step in range(steps):
        rows.append(one_step(model, optimizer, Data(), settings, {"step": step}))
    with averaged(model, optimizer):
        mean = model.params.flat.copy()
    moments = optimizer.whole_moments() or ()
    copy = [model.params.bits.flat] if bits else []
    return [model.params.flat, mean, *copy], [each.flat for each in moments], [
        (row["train_loss"], row["grad_norm"]) for row in rows]


def assert_ranks_as_alone(size, kind, config, settings, bits=False):
    arrays, moments, rows = steps_of(kind, config, lambda model: optimizer_for(model, settings), settings, bits)
    for rank, found in enumerate(on_ranks(size, lambda world: steps_of(
            kind, config, lambda model: sharded.sharded(world, model, settings), settings, bits))):
        assert_same_bits(found[0], arrays)
        assert found[2] == rows and len(found[1]) == (2 if rank == 0 else 0)
        for mine, whole in zip(found[1], moments):
            assert_same_bits(mine, whole)


@pytest.mark.parametrize("size, accumulate", [(2, 2), (2, 5), (3, 4), (5, 5)])
@pytest.mark.parametrize("kind, config", [(GPT, TINY), (Llama, LLAMA)])
@pytest.mark.parametrize("optimizer, ema", [("adamw", 0.0), ("muon", 0.9)])
def test_ranks_take_the_very_steps_of_one_process(small_units, size, accumulate, kind, config, optimizer, ema):
    settings = TrainConfig(accumulate=accumulate, warmup=0, clip=0.1, optimizer=optimizer, ema=ema, backend="numpy")
    assert_ranks_as_alone(size, kind, config, settings)


@pytest.mark.parametrize("backend, bits", [("auto", False), pytest.param("cpu/bf16", True, marks=pytest.mark.skipif(
    "cpu/bf16" not in choices("projection"), reason="no such kernels"))])
def test_compiled_muon_on_ranks_takes_them_too(small_units, backend, bits):
    settings = TrainConfig(accumulate=3, warmup=0, clip=0.1, optimizer="muon", ema=0.9, backend=backend)
    assert_ranks_as_alone(3, Llama, LLAMA, settings, bits)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_muons_matrices_have_one_owner_each_and_work_and_memory_are_balanced(size):
    params = GPT(dataclasses.replace(TINY, n_layer=7, n_embd=64)).params
    matrices = block_matrices(params.shapes)
    cuts = units.units_of(params, matrices)
    owners = units.dealt(cuts, params, matrices, size)
    assert all(one.part.stop == other.part.start for one, other in zip(cuts, cuts[1:]))
    work, kept = np.zeros(size), np.zeros(size)
    for name, parts in matrices.items():
        (owner,) = {owner for unit, owner in zip(cuts, owners) if unit.matrix == name}
        work[owner] += units.matrix_flops(params.shapes[name], parts)
    for unit, owner in zip(cuts, owners):
        kept[owner] += (2 - bool(unit.matrix)) * (unit.part.stop - unit.part.start)
    largest = max(units.matrix_flops(params.shapes[name], parts) for name, parts in matrices.items())
    assert np.ptp(work) <= largest and np.ptp(kept) <= 4 * 64 * 64 + 2 * units.UNIT
    assert set(owners) == set(range(size))


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
    grads = sharded.Sending(model.params.shapes, np.float32, [unit.part for unit in units.units_of(model.params, {})])
    grads.done = seen = Seen(grads)
    grads.begin()
    model.loss_and_grads(batch.tokens, batch.targets, key=(0, 0, 0), grads=grads)
    assert len(seen.units) > len(grads.units) / 2                       # most leave while the backward goes on
    assert all(np.array_equal(found, grads.flat[grads.units[number]]) for number, found in seen.units.items())
    grads.finish_all()
    assert set(seen.units) == {*range(len(grads.units)), None}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_rank_keeps_its_share_and_sends_no_more_than_it_must(small_units, optimizer):
    settings, size = TrainConfig(accumulate=4, warmup=0, optimizer=optimizer), 2

    def work(world):
        model = GPT(TINY, ops=select("numpy"))
        optimizer = sharded.sharded(world, model, settings)
        one_step(model, optimizer, Data(), settings, {"step": 0})
        return optimizer.m.nbytes, world.sent, model.params.flat.nbytes
    (kept, sent, all_bytes), (others, _, _) = on_ranks(size, work)
    assert kept + others == all_bytes and abs(kept - others) <= 4 * units.UNIT
    least = all_bytes * (size - 1) / size * (settings.accumulate / size + 1)
    assert least * 0.9 < sent < least * 1.1 + 4096                       # units are not halves to the byte


def test_what_rank_0_has_found_the_others_are_told():
    def work(world):
        return world.first(lambda: ["found by", world.rank], lambda note: ["told", *note], lambda found: [*found, "é"])
    assert on_ranks(3, work) == [["found by", 0], *[["told", "found by", 0, "é"]] * 2]


def test_validation_is_shared(small_units):
    model = GPT(TINY)
    alone = evaluate(model, Data().validation())
    assert on_ranks(3, lambda world: evaluate(model, Data().validation(), world)) == [alone] * 3


@pytest.mark.parametrize("optimizer, ema", [("adamw", 0.0), ("muon", 0.8)])
def test_a_run_goes_on_with_another_number_of_ranks(small_units, tmp_path, monkeypatch, optimizer, ema):
    monkeypatch.setattr("minillm.train.loop.stop_signals", __import__("contextlib").nullcontext)  # threads have none
    monkeypatch.setattr("minillm.train.loop.exclusive", __import__("contextlib").nullcontext)

    def run(out, steps, size):
        settings = TrainConfig(steps=steps, accumulate=3, eval_every=2, save_every=2, warmup=1, backend="numpy",
                               schedule="wsd", decay=0.0,              # a rate that does not depend on steps
                               optimizer=optimizer, ema=ema)

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


@pytest.fixture
def clocks(monkeypatch):
    """A clock for each rank, of two machines: rank 0's moves by a second in every step, others begin anywhere."""
    fake = SimpleNamespace(now=0.0, zeros={})
    fake.monotonic = lambda: fake.now + fake.zeros.get(threading.get_ident(), 0.0)
    fake.perf_counter = time.perf_counter
    monkeypatch.setattr(loop, "time", fake)
    monkeypatch.setattr(loop, "stop_signals", __import__("contextlib").nullcontext)
    monkeypatch.setattr(loop, "exclusive", __import__("contextlib").nullcontext)
    return fake


def test_rank_0s_clock_ends_the_run_of_all_and_another_number_goes_on(small_units, tmp_path, clocks):
    settings = TrainConfig(steps=1000, accumulate=3, eval_every=0, save_every=0, warmup=1, backend="numpy",
                           schedule="wsd", decay=0.5, min_lr=0.0)

    def run(out, size, seconds, most=1000):
        def work(world):
            rank = world.rank if world else 0
            clocks.zeros[threading.get_ident()] = -1e6 * rank

            def step(model, optimizer, data, config, state):
                clocks.now += not rank
                if state["step"] == most:
                    raise KeyError("killed")
                return one_step(model, optimizer, data, config, state)
            state = train(GPT(TINY, ops=select("numpy")), Data(), settings, tmp_path / out, world=world, step=step,
                          finish=clocks.monotonic() + seconds * (1 - rank / 2))
            return state["step"], state["decay"]
        clocks.now = 0.0
        return on_ranks(size, work) if size > 1 else [work(None)]
    assert run("alone", 1, 8.0) == [(8, [4, 8])]
    assert run("ranks", 3, 8.0) == [(8, [4, 8])] * 3
    with pytest.raises(KeyError):
        run("killed", 2, 8.0, most=6)
    assert run("killed", 3, 100.0) == [(8, [4, 8])] * 3, "in its decay it knows its end"
    for name in ("last/model.safetensors", "last/optimizer.safetensors", "model.safetensors", "gradients.csv"):
        for out in "ranks", "killed":
            assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / out / name).read_bytes(), (out, name)


@pytest.mark.parametrize("what", ["checkpoint", "data", "model"])
def test_a_rank_that_sees_another_folder_is_named(what):
    def work(world):
        other = world.rank == 2
        parallel.check_same_run(world, 7 + (other and what == "checkpoint"), "d" + "e" * (other and what == "data"),
                                np.full(5, float(other and what == "model"), np.float32))
    with pytest.raises(ValueError, match=f"rank 2 has found another {what} than rank 0: machines that train together"):
        on_ranks(3, work)


def test_a_file_that_only_rank_0_sees_is_named(tmp_path):
    def work(world):
        return world.first(lambda: 1, lambda note: (tmp_path / "nothing").read_bytes())
    with pytest.raises(FileNotFoundError, match="nothing.*rank 0 has it, rank 1 on .* does not see it; machines"):
        on_ranks(2, work)


def test_a_silent_rank_ends_the_run_and_is_named(capfd):
    world = worlds(3)[0]
    world.patience = 0.05
    with pytest.raises(SystemExit):
        world.gather([1.0])
    assert world.comm.aborted
    assert "rank 0: nothing heard from rank 1, 2 for 0.05 seconds" in capfd.readouterr().err


def test_a_rank_that_mpi_finds_dead_ends_the_run_and_is_named(capfd):
    class Failing:
        def Test(self):
            raise RuntimeError("Other MPI error\nprocess_vm_readv failed (errno 3)")
    with pytest.raises(SystemExit):
        worlds(2)[0].wait([(Failing(), 1)])
    assert "rank 0: rank 1 cannot be reached any more (Other MPI error); the run ends" in capfd.readouterr().err


def test_what_ranks_cannot_share_is_named():
    world, model = worlds(3)[0], GPT(TINY)
    with pytest.raises(ValueError, match="train.accumulate must be at least the number of processes, 3.*got 2"):
        sharded.sharded(world, model, TrainConfig(accumulate=2))
    with pytest.raises(ValueError, match="muon is for the matrices of a model's blocks"):
        sharded.sharded(world, LoraModel(model, rank=2), TrainConfig(accumulate=3, optimizer="muon"))


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
