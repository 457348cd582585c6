"""The optimizers on ranks: each adds the gradients of its units, keeps their moments, and updates them (parallel.py).

Muon's matrices are updated whole by their owners, the other units by AdamW; the mean of the weights (EMA) is kept as
the moments are. For a validation of that mean, its units take the places of the weights on all ranks, and go back
after it.
"""
import math
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..models.params import Gradients, Params, Shapes
from ..ops.bfloat16 import bfloat16_bits
from ..ops.optimizer.sum_squares import PIECE, sum_squares
from .memory import IN_FLIGHT
from .optim import AdamW, average, exchange, matrices_of, side_by_side, spans_of
from .parallel import World, check_shared
from .units import UNIT, cut, dealt, units_of

WINDOW = IN_FLIGHT // UNIT  # units that a rank has received, or is about to, and not yet added
TOGETHER = 16               # matrices updated at once: enough for the threads, few enough that the first soon leave


class Sending(Gradients):
    """Gradients of one micro-batch, whose units go to their owners while the backward computes the others.

    The backward goes through the blocks, and never comes back to one: as soon as it asks for a gradient of another, all
    of the block before are done. What belongs to no block is done at the end.
    """

    def __init__(self, shapes: Shapes, dtype: Any, units: Sequence[slice]):
        super().__init__(shapes, dtype)
        self.units, self.block = units, ""
        self.starts = [unit.start for unit in units]
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
        number = bisect_right(self.starts, part.start) - 1
        while number < len(self.units) and (unit := self.units[number]).start < part.stop:
            self.left[number] -= min(part.stop, unit.stop) - max(part.start, unit.start)
            if not self.left[number]:
                self.done.put(number)
            number += 1


def block_of(name: str) -> str:
    """h.0. or model.layers.0., what the names of a block begin with; "" for what is in none."""
    found = re.match(r".*?\b(?:h|layers)\.\d+\.", name)
    return found[0] if found else ""


class Sharded(AdamW):
    """AdamW or Muon whose moments, sums of gradients and mean of the weights are shared among the ranks of a World."""

    m: Any                              # of the units of this rank, flat; as the sum of gradients and the mean
    v: Any                              # of those that are AdamW's, which come first
    mean: Any
    grads: Any                          # Sending

    def __init__(self, world: World, model: Any, config: TrainConfig):
        params = model.params
        self.params, self.lr, self.betas, self.eps = params, config.lr, (config.beta1, config.beta2), config.eps
        self.weight_decay, self.momentum, self.decay = config.weight_decay, config.momentum, config.ema
        self.flat, self.steps, self.world = params.flat[:], 0, world
        self.matrices = matrices_of(params) if config.optimizer == "muon" else {}
        units = units_of(params, self.matrices)
        self.units, self.owners = [unit.part for unit in units], dealt(units, params, self.matrices, world.size)
        self.matrix_of = [unit.matrix for unit in units]
        self.mine = [number for number, owner in enumerate(self.owners) if owner == world.rank]
        self.grads = Sending(params.shapes, params.flat.dtype, self.units)              # of a micro-batch of this rank
        self.places, own, adamw = places(self.mine, self.units, self.matrix_of)
        self.sum, self.m = np.zeros((2, own), params.flat.dtype)
        self.v = np.zeros(adamw, params.flat.dtype)
        self.mean = np.zeros(own, params.flat.dtype) if config.ema else None
        self.use(model.ops)

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
            if number in self.places:
                coming.append((number, *self.receive_unit(number, senders)))
                if len(coming) == WINDOW:
                    self.add_unit(coming.popleft(), fresh)
            elif self.world.rank < senders:
                sent.append(self.world.send(self.grads.flat[self.units[number]], self.owners[number], number))
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
        into = self.sum[self.places[number]]
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
        """The norm of all gradients, from the sums that one process adds up, in its order."""
        square_sum, size = self.ops.sum_squares if self.ops else sum_squares, UNIT if self.matrices else PIECE
        terms = [(number, part) for number, unit in enumerate(self.units) for part in cut(unit, size)]
        sums = np.zeros(len(terms))                                         # of this rank's units; others have theirs
        for i, (number, part) in enumerate(terms):
            if number in self.places:
                start = self.places[number].start + part.start - self.units[number].start
                sums[i] = square_sum(self.sum[start:start + part.stop - part.start])
        total = 0.0
        for value in self.world.gather(sums).sum(0):
            total += value
        return math.sqrt(total)

    # ---- the update

    def step(self, grads: Params, lr: float | None = None, scale: float = 1.0) -> None:
        """Update this rank's units, and receive the others."""
        self.steps += 1
        self.share(lambda numbers: self.update_units(numbers, self.lr if lr is None else lr, scale))
        if self.params.bits is not None:
            for number, unit in enumerate(self.units):
                if number not in self.places:
                    self.params.bits.flat[unit] = bfloat16_bits(self.flat[unit])

    def share(self, change: Callable[[list[int]], None]) -> None:
        """change() this rank's units, some at a time; they go to the others while the next are changed."""
        world = self.world
        posted = [world.receive(self.flat[unit], owner, number)
                  for number, (unit, owner) in enumerate(zip(self.units, self.owners)) if number not in self.places]
        for numbers in self.changed_together():
            change(numbers)
            posted += [world.send(self.flat[self.units[number]], rank, number)
                       for number in numbers for rank in world.others()]
        world.wait(posted)

    def changed_together(self) -> Iterator[list[int]]:
        """Numbers of this rank's units: one of AdamW's, or all of some matrices."""
        yield from ([number] for number in self.mine if not self.matrix_of[number])
        own = list(dict.fromkeys(self.matrix_of[number] for number in self.mine if self.matrix_of[number]))
        for part in cut(slice(0, len(own)), TOGETHER):
            yield [number for number in self.mine if self.matrix_of[number] in own[part]]

    def update_units(self, numbers: list[int], lr: float, scale: float) -> None:
        if self.matrix_of[numbers[0]]:
            self.update_matrices(numbers, lr, scale)
        else:
            self.update_unit(numbers[0], lr, scale)
        for number in numbers if self.mean is not None else ():
            average(self.mean[self.places[number]], self.flat[self.units[number]], self.decay, self.steps)

    def update_unit(self, number: int, lr: float, scale: float) -> None:
        unit, here = self.units[number], self.places[number]
        bits = None if self.params.bits is None else self.params.bits.flat[unit]
        n_decayed = min(max(0, self.params.n_decayed - unit.start), unit.stop - unit.start)
        self.update(self.flat[unit], self.sum[here], self.m[here], self.v[here], self.steps, lr, *self.betas, self.eps,
                    self.weight_decay, n_decayed, scale, bits)

    def update_matrices(self, numbers: list[int], lr: float, scale: float) -> None:
        first = {self.matrix_of[number]: number for number in reversed(numbers)}        # {name: its first unit}

        def matrices(flat: np.ndarray, starts: Mapping[str, int]) -> list[np.ndarray]:
            return [part for name in first
                    for part in side_by_side(flat, starts[name], self.params.shapes[name], self.matrices[name])]
        there = {name: self.units[number].start for name, number in first.items()}
        here = {name: self.places[number].start for name, number in first.items()}
        bits = [] if self.params.bits is None else [matrices(self.params.bits.flat, there)]
        self.orthogonal_update(matrices(self.flat, there), matrices(self.sum, here), matrices(self.m, here), lr,
                               self.momentum, self.weight_decay, scale, *bits)

    def exchange_mean(self) -> None:
        """Of each rank's units, which all receive."""
        def swap(numbers: list[int]) -> None:
            for number in numbers:
                exchange(self.flat[self.units[number]], self.mean[self.places[number]])
        self.share(swap)

    # ---- what rank 0 writes, and all read

    def whole(self, mine: np.ndarray, numbers: Sequence[int]) -> Params | None:
        """These units of a buffer, from all ranks, on rank 0; None on the others."""
        own = [number for number in numbers if number in self.places]
        if self.world.rank:
            self.world.wait([self.world.send(mine[self.places[number]], 0, number) for number in own])
            return None
        found = self.params.zeros_like()
        for number in own:
            found.flat[self.units[number]] = mine[self.places[number]]
        self.world.wait([self.world.receive(found.flat[self.units[number]], self.owners[number], number)
                         for number in numbers if number not in self.places])
        return found

    def whole_gradients(self) -> Params | None:
        return self.whole(self.sum, range(len(self.units)))

    def whole_moments(self) -> tuple[Params, Params] | None:
        m = self.whole(self.m, range(len(self.units)))
        all_v = self.whole(self.v, [number for number, matrix in enumerate(self.matrix_of) if not matrix])
        if m is None or all_v is None:
            return None
        v = self.second_moment()
        for span, view in spans_of(self.params, v):
            view[:] = all_v.flat[span]
        return m, v

    def whole_mean(self) -> Params | None:
        return None if self.mean is None else self.whole(self.mean, range(len(self.units)))

    def second_moment(self) -> Params:
        """Zeros for the parameters that have one: AdamW's."""
        shapes = {name: shape for name, shape in self.params.shapes.items() if name not in self.matrices}
        return Params(shapes, self.flat.dtype)

    def take_moments(self, m: Params, v: Params) -> None:
        if v.shapes != self.second_moment().shapes:
            raise ValueError("the moments of another optimizer")
        all_v = self.params.zeros_like()
        for span, view in spans_of(self.params, v):
            all_v.flat[span] = view
        for number in self.mine:
            self.m[self.places[number]] = m.flat[self.units[number]]
            if not self.matrix_of[number]:
                self.v[self.places[number]] = all_v.flat[self.units[number]]

    def take_mean(self, mean: Params) -> None:
        for number in self.mine:
            self.mean[self.places[number]] = mean.flat[self.units[number]]


def places(mine: list[int], units: list[slice], matrix_of: list[str]) -> tuple[dict[int, slice], int, int]:
    """({unit: where it is in what its owner keeps}, numbers kept, of which so many are AdamW's): those come first."""
    found, start, adamw = {}, 0, 0
    for number in sorted(mine, key=lambda number: bool(matrix_of[number])):
        size = units[number].stop - units[number].start
        found[number] = slice(start, start + size)
        start += size
        adamw += 0 if matrix_of[number] else size
    return found, start, adamw


def sharded(world: World, model: Any, config: TrainConfig) -> Sharded:
    """The optimizer of a rank. Raises ValueError for what ranks do not share yet, and for more of them than work."""
    if model.params.device:
        raise ValueError(f"train.backend={config.backend} is for one process")
    check_shared(world, config.accumulate)
    world.patience = config.patience
    return Sharded(world, model, config)
