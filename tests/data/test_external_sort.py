"""External merge sort gives what a sort in memory gives, and equal keys together."""
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.dedup.external_sort import ExternalSort


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 50), max_size=400), st.integers(1, 60))
def test_external_sort_sorts(tmp_path_factory, keys, most):
    folder = tmp_path_factory.mktemp("sort")
    sort = ExternalSort(folder, "s", 0)
    sort.most = most
    keys, values = np.array(keys, np.uint64), np.arange(len(keys), dtype=np.uint64)[::-1].copy()
    for start in range(0, len(keys), 37):
        sort.add(keys[start:start + 37], values[start:start + 37])
    ranges = list(sort.ranges())
    ends = [(part[0], part[-1]) for part, _ in ranges]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
    if len(keys):
        order = np.lexsort((values, keys))
        assert np.array_equal(np.concatenate([part for part, _ in ranges]), keys[order])
        assert np.array_equal(np.concatenate([part for _, part in ranges]), values[order])
    assert list(folder.iterdir()) == []
