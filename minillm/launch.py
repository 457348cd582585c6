"""Whether this process is one of several that mpiexec started (train/parallel.py): who speaks, and how all end."""
import os
import sys
import time

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")       # by MPICH and Intel MPI, Open MPI, PMIx launchers
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
GO_ON = "the run ends here, its last checkpoint is good: run the same command again, with any number of ranks"
LATER = 3.0                 # seconds that other ranks leave to rank 0 to say what is wrong with all of them


def launched() -> bool:
    """Did mpiexec start this process, and others?"""
    sizes = [os.environ[name] for name in SIZES if name in os.environ]
    return sizes != ["1"] and any(name in os.environ for name in RANKS)


def first_process() -> bool:
    """Is this the one that prints, and writes files?"""
    return next((os.environ[name] == "0" for name in RANKS if name in os.environ), True)


def watched() -> None:
    """Go on in a child of a rank's process, which waits, and tells of a signal that ends the child: mostly the system's
    SIGKILL for want of memory. The other ranks could not, for mpiexec ends them at once."""
    if not launched() or sys.platform != "linux":
        return
    import signal
    ours = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)          # none is lost before there is somebody to take it
    if not (child := os.fork()):
        from ctypes import CDLL
        CDLL(None).prctl(1, signal.SIGKILL)                 # PR_SET_PDEATHSIG: the child ends with its parent
        os.setpgid(0, 0)                                    # a signal to the group would come twice
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
        return
    passed: list[int] = []

    def passing(number: int, frame: object) -> None:
        passed.append(number)
        os.kill(child, number)
    for number in ours:
        signal.signal(number, passing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0 and not passed:
        print(f"minillm: rank {rank_name()}: ended by {signal.Signals(-code).name}" + ", perhaps for want of memory"
              * (-code == signal.SIGKILL) + f"; {GO_ON}", file=sys.__stderr__, flush=True)
    os._exit(code if code >= 0 else 128 - code)


def rank_name() -> str:
    return next(os.environ[name] for name in RANKS if name in os.environ)


def fall_silent() -> None:
    """What other ranks than the first would print, the first prints."""
    if not first_process():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")


def end_all(message: str, fault: BaseException | None = None) -> None:
    """End all ranks, if there are others, for an error of this one: they would wait for it. What all ranks have met,
    such as a missing file, rank 0 tells; and where a fault of ours is."""
    if "mpi4py.MPI" not in sys.modules:
        return
    if fault:
        from traceback import print_exception
        print_exception(fault)                              # to end all leaves no time for it
    if not first_process():
        time.sleep(LATER)
        print(f"minillm: rank {rank_name()}: {message}", file=sys.__stderr__, flush=True)
    sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(1)
