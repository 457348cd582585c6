"""Data-parallel training: processes (ranks) on MPI that share the micro-batches of every step, and the optimizer.

    mpiexec -n 4 minillm train --data my_texts/ --out runs/mine --set train.accumulate=8

A step's micro-batches are functions of (seed, step, micro). Rank r of N computes numbers r, r + N, r + 2N, ... The
flat buffer of parameters is cut into units, which are dealt to the ranks (units.py): a unit's owner adds the gradients
of all micro-batches there, keeps the optimizer's moments and the mean of the weights, updates, and sends the new
weights to all (sharded.py; ZeRO, stage 1: Rajbhandari et al. 2020, arXiv 1910.02054). Gradients are added one
micro-batch after the other in the order of their numbers, whoever computed them: so one process or eight end with the
same bytes, and any number of ranks may resume a run.

So a rank sends (N - 1) / N of its parameters' bytes for each of its micro-batches, and once more the new weights: a
reduce-scatter for each round of N micro-batches and an all-gather, the least that N ranks can do with that order kept.
A unit is on its way as soon as the backward has left the block that it belongs to, and new weights
while the next unit is updated. All ranks read the same run directory; only rank 0 writes to it, and only its clock
tells when a time is over: those of two machines have nothing in common.

    mpiexec --hostfile machines.txt -n 8 minillm train --data /shared/texts --out /shared/run --set train.accumulate=8

Several machines need the same minillm at the same path, and --data and --out in a folder that all of them see.
"""
import json
import os
import platform
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np

from ..launch import GO_ON, launched

SHARED = "machines that train together share the folders of --data and --out"
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
        while pending := [(request, rank) for request, rank in pending if not self.done(request, rank)]:
            if time.monotonic() > limit:
                silent = ", ".join(map(str, sorted({rank for _, rank in pending})))
                self.abort(f"nothing heard from rank {silent} for {patience:g} seconds (train.patience); {GO_ON}")
            time.sleep(pause)
            pause = min(1e-3, pause + 1e-5)

    def done(self, request: Any, rank: int) -> bool:
        """Is it sent, or received? A rank that has died ends the run of all: some of MPI's ways to it fail at once."""
        try:
            return request.Test()
        except RuntimeError as error:                                       # mpi4py's are of this kind
            self.abort(f"rank {rank} cannot be reached any more ({str(error).splitlines()[0]}); {GO_ON}")

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

    def first(self, work: Callable[[], Any], then: Callable[[Any], Any],
              note: Callable[[Any], Any] = lambda result: None) -> Any:
        """result = work() on rank 0, and only when it is done, however long it takes, then(note(result)) on the others.

        A note is of what JSON can hold.
        """
        result = None if self.rank else work()
        text = np.frombuffer(json.dumps(note(result) if not self.rank else None).encode(), np.uint8)
        size = int(self.gather([text.size], float("inf") if self.rank else None)[0, 0])
        if not self.rank:
            self.wait([self.send(text, rank) for rank in self.others()])
            return result
        text = np.empty(size, np.uint8)
        self.wait([self.receive(text, 0)])
        try:
            return then(json.loads(text.tobytes()))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}: rank 0 has it, rank {self.rank} on {platform.node()} does not see it; "
                                    f"{SHARED}") from None

    def abort(self, message: str) -> NoReturn:
        """End all ranks, with a message."""
        print(f"minillm: rank {self.rank}: {message}", file=sys.__stderr__, flush=True)
        self.comm.Abort(1)
        raise SystemExit(1)


def of_rank_0(world: World | None, *numbers: float) -> list[float]:
    """The numbers that rank 0 has, such as the time, on all ranks: so that all decide alike."""
    return list(numbers) if world is None else world.gather(numbers)[0].tolist()


def check_same_run(world: World, step: int, data: str, weights: np.ndarray) -> None:
    """Raise ValueError, on all ranks, unless all have found the same checkpoint and the same data."""
    seen = world.gather([step, zlib.crc32(data.encode()), zlib.crc32(weights.data)])
    for rank, row in enumerate(seen):
        for what, ours, theirs in zip(("checkpoint", "data", "model"), seen[0], row):
            if ours != theirs:
                raise ValueError(f"rank {rank} has found another {what} than rank 0: {SHARED}")


def check_shared(world: World, accumulate: int) -> None:
    """Raise ValueError for more ranks than micro-batches in a step: some would have nothing to do."""
    if world.size > accumulate:
        raise ValueError(f"train.accumulate must be at least the number of processes, {world.size}, which share the "
                         f"micro-batches of a step: got {accumulate}")
