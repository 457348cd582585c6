"""Data-parallel training: processes (ranks) on MPI that share the micro-batches of every step, and the optimizer.

    mpiexec -n 4 minillm train --data my_texts/ --out runs/mine --set train.accumulate=8

A step's micro-batches are functions of (seed, step, micro). Rank r of N computes numbers r, r + N, r + 2N, ... The
flat buffer of parameters is cut into N shards, and each rank owns one: it adds the gradients of all micro-batches
there, keeps the moments of AdamW, updates, and sends the new weights to all (ZeRO, stage 1: Rajbhandari et al. 2020,
arXiv 1910.02054). Gradients are added one micro-batch after the other in the order of their numbers, whoever computed
them: so one process or eight end with the same bytes, and a run may be resumed by any number of ranks.

    sent by a rank in a step = 4 * parameters * (N - 1) / N * (its micro-batches + 1)          bytes

That is one reduce-scatter for each round of N micro-batches and one all-gather, the least that N ranks can do with an
order kept. All ranks read the same run directory; only rank 0 writes to it.
"""
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np

from ..config import TrainConfig
from ..kernels.select import Ops
from ..launch import launched
from ..models.params import Gradients, Params
from ..ops.bfloat16 import bfloat16_bits
from ..ops.optimizer.sum_squares import PIECE
from .optim import AdamW

BUCKET = 1 << 20            # numbers that are sent at a time, while those before are added
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

    def post(self, sends: dict[int, np.ndarray], receives: dict[int, np.ndarray]) -> tuple[list, list[int]]:
        """Begin to send and receive {rank: array}: (requests, the rank that each of them waits for)."""
        self.sent += sum(array.nbytes for array in sends.values())
        requests = [self.comm.Irecv(array, rank) for rank, array in receives.items()]
        requests += [self.comm.Isend(array, rank) for rank, array in sends.items()]
        return requests, [*receives, *sends]

    def wait(self, requests: Sequence[Any], ranks: Sequence[int], patience: float | None = None) -> None:
        """Until all is sent and received. A rank that says nothing for `patience` seconds ends the run of all."""
        limit, pause = time.monotonic() + (patience or self.patience), 0.0
        pending = dict(enumerate(requests))
        while pending := {i: request for i, request in pending.items() if not request.Test()}:
            if time.monotonic() > limit:
                silent = sorted({ranks[i] for i in pending})
                self.abort(f"nothing heard from rank {', '.join(map(str, silent))} for {patience or self.patience:g} "
                           "seconds (train.patience); the run ends here, its last checkpoint is good: run the same "
                           "command again, with any number of ranks")
            time.sleep(pause)
            pause = min(1e-3, pause + 1e-5)

    def exchange(self, sends: dict[int, np.ndarray], receives: dict[int, np.ndarray],
                 patience: float | None = None) -> None:
        self.wait(*self.post(sends, receives), patience)

    def others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def gather(self, values: Sequence[float], patience: float | None = None) -> np.ndarray:
        """The numbers of all ranks, as many from each: (size, n) float64, the same everywhere."""
        found = np.empty((self.size, len(values)))
        found[self.rank] = values
        self.exchange(dict.fromkeys(self.others(), found[self.rank]), {r: found[r] for r in self.others()}, patience)
        return found

    def dealt(self, values: dict[int, Sequence[float]], count: int, width: int) -> np.ndarray:
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


def shards(size: int, ranks: int) -> list[slice]:
    """A flat buffer cut for so many ranks, at whole pieces of `sum_squares`, so that the norm's sums are the same."""
    pieces = -(-size // PIECE)
    ends = [min(size, PIECE * (pieces * rank // ranks)) for rank in range(ranks + 1)]
    return [slice(start, end) for start, end in zip(ends, ends[1:])]


class ShardedAdamW(AdamW):
    """AdamW whose moments and sums of gradients are shared among the ranks of a World, each with a shard of its own."""

    def __init__(self, world: World, params: Params, lr: float, betas: tuple[float, float], eps: float,
                 weight_decay: float, ops: Ops):
        self.params, self.lr, self.betas, self.eps, self.weight_decay = params, lr, betas, eps, weight_decay
        self.flat, self.steps, self.decay, self.mean = params.flat[:], 0, 0.0, None
        self.world, self.shards = world, shards(params.flat.size, world.size)
        self.shard = self.shards[world.rank]
        self.grads = Gradients(params.shapes, params.flat.dtype)            # of a micro-batch of this rank
        self.sum, self.m, self.v = np.zeros((3, self.shard.stop - self.shard.start), params.flat.dtype)
        self.use(ops)

    # ---- gradients

    def micro_gradients(self, count: int) -> Iterator[tuple[int, Gradients]]:
        """(micro, gradients to add to) of each of this rank's micro-batches; all are added up meanwhile."""
        for first in range(0, count, self.world.size):
            micro = first + self.world.rank
            if micro < count:
                yield micro, self.zero_grads()
            self.add_round(min(count - first, self.world.size), first == 0)

    def add_round(self, senders: int, fresh: bool) -> None:
        """Add the gradients of ranks 0 to senders - 1, in this order, to the sums of their owners, bucket by bucket."""
        longest = max(shard.stop - shard.start for shard in self.shards)
        posted = None
        for start in range(0, longest, BUCKET):
            ahead = self.post_bucket(start, senders)
            if posted:
                self.add_bucket(*posted, senders, fresh)
            posted = ahead
        if posted:
            self.add_bucket(*posted, senders, fresh)

    def post_bucket(self, start: int, senders: int) -> tuple[int, tuple, dict[int, np.ndarray]]:
        def bucket(rank: int) -> slice:
            shard = self.shards[rank]
            return slice(min(shard.start + start, shard.stop), min(shard.start + start + BUCKET, shard.stop))
        world, mine = self.world, bucket(self.world.rank)
        received = {r: np.empty(mine.stop - mine.start, self.sum.dtype) for r in world.others() if r < senders}
        sends = {r: self.grads.flat[bucket(r)] for r in world.others()} if world.rank < senders else {}
        return start, world.post(sends, received), received

    def add_bucket(self, start: int, requests: tuple, received: dict[int, np.ndarray], senders: int,
                   fresh: bool) -> None:
        self.world.wait(*requests)
        into = self.sum[start:start + BUCKET]
        own = self.grads.flat[self.shard][start:start + BUCKET]
        for rank in range(senders):
            part = own if rank == self.world.rank else received[rank]
            if fresh and rank == 0:
                into[:] = part
            else:
                into += part

    def of_micros(self, values: dict[int, Sequence[float]], count: int) -> np.ndarray:
        width = int(self.world.gather([len(row) for row in list(values.values())[:1]] or [0]).max())
        return self.world.dealt(values, count, width)

    def agreed(self, wish: bool) -> bool:
        return bool(self.world.gather([wish]).any())

    def norm(self) -> float:
        """The norm of all gradients, from the sums of all ranks' pieces in their order: as one process has it."""
        most = max(-(-(shard.stop - shard.start) // PIECE) for shard in self.shards)
        mine = [self.ops.sum_squares(self.sum[start:start + PIECE]) for start in range(0, self.sum.size, PIECE)]
        total = 0.0
        for row in self.world.gather(mine + [0.0] * (most - len(mine))):
            for value in row:
                total += value
        return float(total) ** 0.5

    # ---- the update

    def step(self, grads: Params, lr: float | None = None, scale: float = 1.0) -> None:
        """Update this rank's shard, and exchange the new weights, a bucket while the next one is updated."""
        self.steps += 1
        world, requests, ranks = self.world, [], []
        for rank in world.others():
            for part in buckets(self.shards[rank]):
                posted = world.post({}, {rank: self.flat[part]})
                requests += posted[0]
                ranks += posted[1]
        for part in buckets(self.shard):
            self.update_shard(part, self.lr if lr is None else lr, scale)
            posted = world.post(dict.fromkeys(world.others(), self.flat[part]), {})
            requests += posted[0]
            ranks += posted[1]
        world.wait(requests, ranks)
        if self.params.bits is not None:
            for rank in world.others():
                self.params.bits.flat[self.shards[rank]] = bfloat16_bits(self.flat[self.shards[rank]])

    def update_shard(self, part: slice, lr: float, scale: float) -> None:
        here = slice(part.start - self.shard.start, part.stop - self.shard.start)
        bits = None if self.params.bits is None else self.params.bits.flat[part]
        n_decayed = min(max(0, self.params.n_decayed - part.start), part.stop - part.start)
        self.update(self.flat[part], self.sum[here], self.m[here], self.v[here], self.steps, lr, *self.betas, self.eps,
                    self.weight_decay, n_decayed, scale, bits)

    # ---- what rank 0 writes, and all read

    def whole(self, mine: np.ndarray) -> Params | None:
        """All ranks' shards of a buffer, on rank 0; None on the others."""
        if self.world.rank:
            self.world.exchange({0: mine}, {})
            return None
        found = self.params.zeros_like()
        found.flat[self.shard] = mine
        self.world.exchange({}, {rank: found.flat[self.shards[rank]] for rank in self.world.others()})
        return found

    def whole_gradients(self) -> Params | None:
        return self.whole(self.sum)

    def whole_moments(self) -> tuple[Params, Params] | None:
        m, v = self.whole(self.m), self.whole(self.v)
        return (m, v) if m is not None and v is not None else None

    def take_moments(self, m: Params, v: Params) -> None:
        if v.shapes != self.params.shapes:
            raise ValueError("the moments of another optimizer")
        self.m[:], self.v[:] = m.flat[self.shard], v.flat[self.shard]


def sharded(world: World, model: Any, config: TrainConfig, finish: float = math.inf) -> ShardedAdamW:
    """The optimizer of a rank. Raises ValueError for what ranks do not share yet, and for more of them than work."""
    if config.optimizer != "adamw" or config.ema:
        raise ValueError("train.optimizer=muon and train.ema are for one process: ranks share the moments of adamw only")
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


def buckets(shard: slice) -> Iterator[slice]:
    for start in range(shard.start, shard.stop, BUCKET):
        yield slice(start, min(shard.stop, start + BUCKET))
