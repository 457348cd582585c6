"""Data-parallel training: processes (ranks) on MPI that share the micro-batches of every step, and the optimizer.

    mpiexec -n 4 minillm train --data my_texts/ --out runs/mine --set train.accumulate=8

A step's micro-batches are functions of (seed, step, micro). Rank r of N computes numbers r, r + N, r + 2N, ... The
flat buffer of parameters is cut into units, and unit u belongs to rank u mod N: it adds the gradients of all
micro-batches there, keeps the moments of AdamW, updates, and sends the new weights to all (ZeRO, stage 1: Rajbhandari
et al. 2020, arXiv 1910.02054). Gradients are added one micro-batch after the other in the order of their numbers,
whoever computed them: so one process or eight end with the same bytes, and any number of ranks may resume a run.

So a rank sends (N - 1) / N of its parameters' bytes for each of its micro-batches, and once more the new weights: a
reduce-scatter for each round of N micro-batches and an all-gather, the least that N ranks can do with that order kept.
A unit is on its way as soon as the backward has left the block that it belongs to, and new weights
while the next unit is updated. All ranks read the same run directory; only rank 0 writes to it.
"""
import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, NoReturn

import numpy as np

from ..config import TrainConfig
from ..kernels.select import Ops
from ..launch import launched
from ..models.params import Gradients, Params, Shapes
from ..ops.bfloat16 import bfloat16_bits
from ..ops.optimizer.sum_squares import PIECE, sum_squares
from .memory import IN_FLIGHT
from .optim import AdamW

UNIT = 4 * PIECE            # numbers of one owner: whole pieces of `sum_squares`, so that the norm's sums are the same
WINDOW = IN_FLIGHT // UNIT  # units that a rank has received, or is about to, and not yet added
LOCAL = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")                           # ranks on this machine


@cache
def all_ranks() -> "World | None":
    """The World of the processes that mpiexec started; None if there are no others.

    Cores are shared out among the ranks of a machine, unless OMP_NUM_THREADS says otherwise. Raises ImportError without
    mpi4py, ValueError where it belongs to another MPI than mpiexec.
    """
    if not launched():
        return None
    local = next((int(os.environ[name]) for name in LOCAL if name in os.environ), 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // local)))
    try:
        from mpi4py import MPI
    except ImportError:
        raise ImportError("started by mpiexec, but there is no mpi4py: pip install 'minillm[mpi]'") from None
    if MPI.COMM_WORLD.size == 1:
        raise ValueError("mpiexec started several processes, but mpi4py sees one: they belong to different MPIs; use "
                         "the mpiexec of the MPI that mpi4py was built for")
    return World(MPI.COMM_WORLD)


class World:
    """The ranks that train together: messages between two of them, and what is made of those."""

    def __init__(self, comm: Any):
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.patience, self.sent = 300.0, 0             # seconds to wait for others; bytes

    def send(self, array: np.ndarray, rank: int, tag: int = 0) -> tuple[Any, int]:
        """Begin to send: (request, rank), to wait for."""
        self.sent += array.nbytes
        return self.comm.Isend(array, rank, tag), rank

    def receive(self, array: np.ndarray, rank: int, tag: int = 0) -> tuple[Any, int]:
        """Begin to receive into the array: (request, rank), to wait for."""
        return self.comm.Irecv(array, rank, tag), rank

    def wait(self, posted: Iterable[tuple[Any, int]], patience: float | None = None) -> None:
        """Until all is sent and received. A rank that says nothing for `patience` seconds ends the run of all."""
        patience, pause = patience or self.patience, 0.0
        limit = time.monotonic() + patience
        pending = list(posted)
        while pending := [(request, rank) for request, rank in pending if not request.Test()]:
            if time.monotonic() > limit:
                silent = ", ".join(map(str, sorted({rank for _, rank in pending})))
                self.abort(f"nothing heard from rank {silent} for {patience:g} seconds (train.patience); the run ends "
                           "here, its last checkpoint is good: run the same command again, with any number of ranks")
            time.sleep(pause)
            pause = min(1e-3, pause + 1e-5)

    def others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def gather(self, values: Sequence[float] | np.ndarray, patience: float | None = None) -> np.ndarray:
        """The numbers of all ranks, as many from each: (size, n) float64, the same everywhere."""
        found = np.empty((self.size, len(values)))
        found[self.rank] = values
        self.wait([self.receive(found[rank], rank) for rank in self.others()]
                  + [self.send(found[self.rank], rank) for rank in self.others()], patience)
        return found

    def dealt(self, values: Mapping[int, Sequence[float] | np.ndarray], count: int, width: int) -> np.ndarray:
        """Row i of `count` is that of the rank i % size, which has it under i in values: (count, width) float64."""
        rounds = -(-count // self.size)
        mine = np.zeros((rounds, width))
        for i, row in values.items():
            mine[i // self.size] = row
        return self.gather(mine.ravel()).reshape(self.size, rounds, width).swapaxes(0, 1).reshape(-1, width)[:count]

    def first(self, work: Callable[[], Any], then: Callable[[], Any]) -> Any:
        """work() on rank 0, and only when it is done then() on the others, however long it takes."""
        if self.rank:
            self.gather([0.0], float("inf"))
            return then()
        result = work()
        self.gather([0.0])
        return result

    def abort(self, message: str) -> NoReturn:
        """End all ranks, with a message."""
        print(f"minillm: rank {self.rank}: {message}", file=sys.__stderr__, flush=True)
        self.comm.Abort(1)
        raise SystemExit(1)


class Sending(Gradients):
    """Gradients of one micro-batch, whose units go to their owners while the backward computes the others.

    The backward goes through the blocks, and never comes back to one: as soon as it asks for a gradient of another, all
    of the block before are done. What belongs to no block is done at the end.
    """

    def __init__(self, shapes: Shapes, dtype: Any, units: list[slice]):
        super().__init__(shapes, dtype)
        self.units, self.block = units, ""
        self.done: Any = SimpleQueue()
        self.left = [unit.stop - unit.start for unit in units]              # numbers of each that are not done

    def __getitem__(self, name: str) -> np.ndarray:
        block = block_of(name)
        if block != self.block:
            self.finish(self.block)
            self.block = block
        return super().__getitem__(name)

    def begin(self) -> None:
        """Zeros, none of which is done."""
        self.clear()
        self.block, self.left = "", [unit.stop - unit.start for unit in self.units]

    def finish(self, block: str) -> None:
        """Tell which units are done now that a block is."""
        for name in self.shapes if block else ():
            if block_of(name) == block:
                self.count(slice(self.ends[name] - self.views[name].size, self.ends[name]))

    def finish_all(self) -> None:
        for number, left in enumerate(self.left):
            if left:
                self.done.put(number)
        self.done.put(None)

    def count(self, part: slice) -> None:
        for number in range(part.start // UNIT, -(-part.stop // UNIT)):
            unit = self.units[number]
            self.left[number] -= min(part.stop, unit.stop) - max(part.start, unit.start)
            if not self.left[number]:
                self.done.put(number)


def block_of(name: str) -> str:
    """h.0. or model.layers.0., what the names of a block begin with; "" for what is in none."""
    found = re.match(r".*?\b(?:h|layers)\.\d+\.", name)
    return found[0] if found else ""


def units_of(size: int) -> list[slice]:
    return [slice(start, min(size, start + UNIT)) for start in range(0, size, UNIT)]


class ShardedAdamW(AdamW):
    """AdamW whose moments and sums of gradients are shared among the ranks of a World, by units."""

    m: Any                              # of the units of this rank, flat; as v and the sum of gradients
    v: Any
    grads: Any                          # Sending

    def __init__(self, world: World, params: Params, lr: float, betas: tuple[float, float], eps: float,
                 weight_decay: float, ops: Ops):
        self.params, self.lr, self.betas, self.eps, self.weight_decay = params, lr, betas, eps, weight_decay
        self.flat, self.steps, self.decay, self.mean, self.world = params.flat[:], 0, 0.0, None, world
        self.units = units_of(params.flat.size)
        self.mine = range(world.rank, len(self.units), world.size)
        self.grads = Sending(params.shapes, params.flat.dtype, self.units)              # of a micro-batch of this rank
        own = sum(self.units[number].stop - self.units[number].start for number in self.mine)
        self.sum, self.m, self.v = np.zeros((3, own), params.flat.dtype)                # of the units of this rank
        self.use(ops)

    def here(self, number: int) -> slice:
        """Where a unit of this rank is in `sum`, `m` and `v`."""
        start = UNIT * (number // self.world.size)
        return slice(start, start + self.units[number].stop - self.units[number].start)

    # ---- gradients

    def micro_gradients(self, count: int) -> Iterator[tuple[int, Gradients]]:
        """(micro, gradients to add to) of each of this rank's micro-batches; all are added up meanwhile."""
        for first in range(0, count, self.world.size):
            micro, senders = first + self.world.rank, min(count - first, self.world.size)
            self.grads.begin()
            adding = Thread(target=self.add_round, args=(senders, first == 0), daemon=True)
            adding.start()
            if micro < count:
                yield micro, self.grads
            self.grads.finish_all()
            adding.join()

    def add_round(self, senders: int, fresh: bool) -> None:
        """Add the gradients of ranks 0 to senders - 1, in this order, unit by unit as they are done."""
        sent: list = []
        coming: deque = deque()
        for number in iter(self.grads.done.get, None):
            if number in self.mine:
                coming.append((number, *self.receive_unit(number, senders)))
                if len(coming) == WINDOW:
                    self.add_unit(coming.popleft(), fresh)
            elif self.world.rank < senders:
                sent.append(self.world.send(self.grads.flat[self.units[number]], number % self.world.size, number))
        for unit in coming:
            self.add_unit(unit, fresh)
        self.world.wait(sent)

    def receive_unit(self, number: int, senders: int) -> tuple[list[np.ndarray], list]:
        """(the gradients of each rank, what to wait for until they are there)."""
        own = self.grads.flat[self.units[number]]
        parts = [own if rank == self.world.rank else np.empty_like(own) for rank in range(senders)]
        return parts, [self.world.receive(part, rank, number) for rank, part in enumerate(parts)
                       if rank != self.world.rank]

    def add_unit(self, unit: tuple[int, list[np.ndarray], list], fresh: bool) -> None:
        number, parts, posted = unit
        self.world.wait(posted)
        into = self.sum[self.here(number)]
        for rank, part in enumerate(parts):
            if fresh and rank == 0:
                into[:] = part
            else:
                into += part

    def of_micros(self, values: Mapping[int, Sequence[float]], count: int) -> np.ndarray:
        width = int(self.world.gather([len(row) for row in list(values.values())[:1]] or [0]).max())
        return self.world.dealt(values, count, width)

    def agreed(self, wish: bool) -> bool:
        return bool(self.world.gather([wish]).any())

    def norm(self) -> float:
        """The norm of all gradients, from the sums of all pieces in their order: as one process has it."""
        square_sum = self.ops.sum_squares if self.ops else sum_squares
        sums = {number: np.zeros(UNIT // PIECE) for number in self.mine}
        for number in self.mine:
            unit = self.sum[self.here(number)]
            for i, start in enumerate(range(0, unit.size, PIECE)):
                sums[number][i] = square_sum(unit[start:start + PIECE])
        total = 0.0
        for value in self.world.dealt(sums, len(self.units), UNIT // PIECE).ravel():
            total += value
        return math.sqrt(total)

    # ---- the update

    def step(self, grads: Params, lr: float | None = None, scale: float = 1.0) -> None:
        """Update this rank's units; each goes to the others while the next one is updated."""
        self.steps += 1
        world = self.world
        posted = [world.receive(self.flat[unit], number % world.size, number) for number, unit in enumerate(self.units)
                  if number not in self.mine]
        for number in self.mine:
            self.update_unit(number, self.lr if lr is None else lr, scale)
            posted += [world.send(self.flat[self.units[number]], rank, number) for rank in world.others()]
        world.wait(posted)
        if self.params.bits is not None:
            for number, unit in enumerate(self.units):
                if number not in self.mine:
                    self.params.bits.flat[unit] = bfloat16_bits(self.flat[unit])

    def update_unit(self, number: int, lr: float, scale: float) -> None:
        unit, here = self.units[number], self.here(number)
        bits = None if self.params.bits is None else self.params.bits.flat[unit]
        n_decayed = min(max(0, self.params.n_decayed - unit.start), unit.stop - unit.start)
        self.update(self.flat[unit], self.sum[here], self.m[here], self.v[here], self.steps, lr, *self.betas, self.eps,
                    self.weight_decay, n_decayed, scale, bits)

    # ---- what rank 0 writes, and all read

    def whole(self, mine: np.ndarray) -> Params | None:
        """All ranks' units of a buffer, on rank 0; None on the others."""
        if self.world.rank:
            self.world.wait([self.world.send(mine[self.here(number)], 0, number) for number in self.mine])
            return None
        found = self.params.zeros_like()
        for number in self.mine:
            found.flat[self.units[number]] = mine[self.here(number)]
        self.world.wait([self.world.receive(found.flat[unit], number % self.world.size, number)
                         for number, unit in enumerate(self.units) if number not in self.mine])
        return found

    def whole_gradients(self) -> Params | None:
        return self.whole(self.sum)

    def whole_moments(self) -> tuple[Params, Params] | None:
        m, v = self.whole(self.m), self.whole(self.v)
        return (m, v) if m is not None and v is not None else None

    def take_moments(self, m: Params, v: Params) -> None:
        if v.shapes != self.params.shapes:
            raise ValueError("the moments of another optimizer")
        for number in self.mine:
            for ours, theirs in ((self.m, m), (self.v, v)):
                ours[self.here(number)] = theirs.flat[self.units[number]]


def sharded(world: World, model: Any, config: TrainConfig, finish: float = math.inf) -> ShardedAdamW:
    """The optimizer of a rank. Raises ValueError for what ranks do not share yet, and for more of them than work."""
    if config.optimizer != "adamw" or config.ema:
        raise ValueError("train.optimizer=muon and train.ema are for one process: ranks share what adamw keeps")
    if finish < math.inf:
        raise ValueError("finish is for one process: ranks would not agree on the time")
    check_shared(world, config.accumulate)
    world.patience = config.patience
    return ShardedAdamW(world, model.params, config.lr, (config.beta1, config.beta2), config.eps, config.weight_decay,
                        model.ops)


def check_shared(world: World, accumulate: int) -> None:
    """Raise ValueError for more ranks than micro-batches in a step: some would have nothing to do."""
    if world.size > accumulate:
        raise ValueError(f"train.accumulate must be at least the number of processes, {world.size}, which share the "
                         f"micro-batches of a step: got {accumulate}")
