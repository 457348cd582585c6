"""Ranks as threads of one process: the messages of mpi4py without MPI."""
import threading
from queue import Queue

from minillm.train import parallel


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
