"""Whether this process is one of several that mpiexec started (train/parallel.py): who speaks, and how all end."""
import os
import sys
import time

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")       # by MPICH and Intel MPI, Open MPI, PMIx launchers
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
LATER = 3.0                 # seconds that other ranks leave to rank 0 to say what is wrong with all of them


def launched() -> bool:
    """Did mpiexec start this process, and others?"""
    sizes = [os.environ[name] for name in SIZES if name in os.environ]
    return sizes != ["1"] and any(name in os.environ for name in RANKS)


def first_process() -> bool:
    """Is this the one that prints, and writes files?"""
    return next((os.environ[name] == "0" for name in RANKS if name in os.environ), True)


def fall_silent() -> None:
    """What other ranks than the first would print, the first prints."""
    if not first_process():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")


def end_all(message: str) -> None:
    """End all ranks, if there are others, for an error of this one: they would wait for it. What all ranks have met,
    such as a missing file, rank 0 tells."""
    if "mpi4py.MPI" not in sys.modules:
        return
    if not first_process():
        time.sleep(LATER)
        rank = next(os.environ[name] for name in RANKS if name in os.environ)
        print(f"minillm: rank {rank}: {message}", file=sys.__stderr__, flush=True)
    sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(1)
