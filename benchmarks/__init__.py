"""Benchmarks: `python -m benchmarks` times every op of the table, and the whole model, against NumPy and PyTorch.

The rules, because a benchmark is an experiment: nothing is timed before its result was compared with the reference
(`measure`); candidates take turns, so that a drifting clock or a busy neighbour hits all of them; figures are medians
with their quartiles; the machine's own limits are measured in the same run (`machine`), since a ratio to what the
hardware can do says more than milliseconds. Results are JSON under results/, and the tables in README.md come from
there.
"""
