"""The flat buffer of parameters cut into units, and the units dealt to ranks (parallel.py).

AdamW changes each number by itself, so any cut will do. Muon changes a matrix as a whole: its units end where a matrix
does, and all of one matrix belong to one rank.
"""
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..models.params import Params
from ..ops.optimizer.muon import flops_of
from ..ops.optimizer.sum_squares import PIECE

UNIT = 4 * PIECE            # numbers at most: whole pieces of `sum_squares`, so that the norm's sums are the same


class Unit(NamedTuple):
    """What goes from rank to rank as one message."""

    part: slice             # of the flat buffer
    matrix: str = ""        # the parameter of Muon's that it belongs to; "": AdamW's


def units_of(params: Params, matrices: Mapping[str, int]) -> list[Unit]:
    """All units, in the order of the flat buffer. matrices: Muon's parameters, by name; {}: all are AdamW's."""
    found, start = [], 0
    for name in params:
        if name in matrices:
            end = params.ends[name]
            border = end - params.views[name].size
            found += [Unit(part) for part in cut(slice(start, border), UNIT)]
            found += [Unit(part, name) for part in cut(slice(border, end), UNIT)]
            start = end
    return found + [Unit(part) for part in cut(slice(start, params.flat.size), UNIT)]


def cut(part: slice, size: int) -> Iterator[slice]:
    """A part of a buffer in pieces of `size` numbers, the last of which may be shorter."""
    return (slice(start, min(part.stop, start + size)) for start in range(part.start, part.stop, size))


def dealt(units: list[Unit], params: Params, matrices: Mapping[str, int], size: int) -> list[int]:
    """The rank, of `size`, that owns each unit: matrices by the arithmetic of their update, the most expensive first to
    the rank that has least of it, and then the rest to the rank that keeps the fewest numbers."""
    work, kept, owner_of = [0] * size, [0] * size, {}
    costs = {name: matrix_flops(params.shapes[name], parts) for name, parts in matrices.items()}
    for name in sorted(matrices, key=lambda name: -costs[name]):
        owner_of[name] = rank = work.index(min(work))
        work[rank] += costs[name]
        kept[rank] += params.views[name].size                   # a momentum; AdamW's have two moments
    owners = []
    for part, matrix in units:
        rank = owner_of[matrix] if matrix else kept.index(min(kept))
        kept[rank] += 0 if matrix else 2 * (part.stop - part.start)
        owners.append(rank)
    return owners


def matrix_flops(shape: tuple[int, ...], parts: int) -> int:
    """Of Muon's update of a parameter that is `parts` matrices side by side."""
    return parts * flops_of(shape[0], shape[1] // parts)
