"""Where batches of documents are processed: in this process, in worker processes of our own, or on a Dask cluster."""
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

from ..tokenizer.fast import count_threads


class Here(Executor):
    """An executor that does the work at once, in this process."""

    def submit(self, function: Callable, /, *arguments: Any, **keywords: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


@contextmanager
def workers(processes: int | None = None, scheduler: str | None = None) -> Iterator[tuple[Executor, int]]:
    """(an executor as of concurrent.futures, how many tasks it works on at once).

    processes: None for one a core. scheduler: of Dask, an address or "local"; a task whose worker dies runs again.
    """
    if scheduler:
        with connected(scheduler, processes) as client:
            yield client.get_executor(retries=3), max(1, sum(client.nthreads().values()))
        return
    processes = processes or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes) if processes > 1 else Here() as pool:
        yield pool, processes


def in_order(tasks: Iterable[tuple[Any, Future]], most: int) -> Iterator[tuple[Any, Any]]:
    """(key, result) of each (key, future) in their order. They are drawn, and so begun, at most `most` ahead."""
    tasks = iter(tasks)
    waiting = deque(islice(tasks, most))
    try:
        while waiting:
            key, future = waiting.popleft()
            waiting.extend(islice(tasks, 1))
            yield key, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


@contextmanager
def connected(scheduler: str, processes: int | None = None) -> Iterator[Any]:
    """A Dask client; of a cluster here of `processes` workers (None: one a core), or of the one at the address.

    Raises ImportError without the extra `dask`, OSError if there is no scheduler at the address.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError("a Dask scheduler needs the extra: pip install 'minillm[dask]'") from error
    here = {"n_workers": count_threads(processes), "threads_per_worker": 1, "dashboard_address": None}
    with (LocalCluster(**here) if scheduler == "local" else nullcontext(scheduler)) as found, Client(found) as client:
        yield client
