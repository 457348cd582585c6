"""Metrics in Prometheus's text format: counters that only grow, and histograms of durations.

Each is written by one thread only and read by another; a reading may be a moment old, never wrong for long.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Counter:
    """A number that only grows, for each combination of labels."""

    def __init__(self, name: str, text: str, *labels: str):
        self.name, self.text, self.labels = name, text, labels
        self.values: dict[tuple, int] = {} if labels else {(): 0}

    def add(self, amount: int = 1, *labels: object) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        yield from head(self.name, self.text, "counter")
        for values, amount in list(self.values.items()):
            yield f"{self.name}{labelled(zip(self.labels, values))} {amount}"


class Histogram:
    """How many durations, in seconds, were at most each edge; their number and their sum."""

    def __init__(self, name: str, text: str, edges: Sequence[float] = SECONDS):
        self.name, self.text, self.edges = name, text, edges
        self.counts, self.sum = [0] * (len(edges) + 1), 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.edges, seconds)] += 1
        self.sum += seconds

    def lines(self) -> Iterator[str]:
        yield from head(self.name, self.text, "histogram")
        total = 0
        for edge, count in zip((*self.edges, "+Inf"), list(self.counts)):
            total += count
            yield f'{self.name}_bucket{{le="{edge}"}} {total}'
        yield f"{self.name}_sum {self.sum}"
        yield f"{self.name}_count {total}"


def gauge(name: str, text: str, value: float) -> list[str]:
    """The lines of a number that goes up and down."""
    return [*head(name, text, "gauge"), f"{name} {value}"]


def head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def labelled(pairs: Iterable[tuple[str, object]]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""
