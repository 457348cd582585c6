"""How much a call holds at a time: the peak of what NumPy has allocated."""
import tracemalloc
from collections.abc import Callable
from typing import Any

from .exercise import Wrong


def check_peak(call: Callable[[], Any], whole: int, words: str) -> str:
    """Raise Wrong where a call holds half of `whole` bytes, those of an array that it should do without."""
    tracemalloc.start()
    try:
        call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > whole / 2:
        raise Wrong(f"{words} it holds {peak / 1e6:.1f} MB at a time, as much as all scores ({whole / 1e6:.1f} MB): "
                    "only those of one block, (T, block), may be in memory")
    return f"{words} it holds {peak / 1e6:.2f} MB at a time, where all scores would be {whole / 1e6:.1f} MB"
