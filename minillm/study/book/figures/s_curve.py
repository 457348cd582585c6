"""MinHash's S-curve: the probability that two documents of a similarity share a band, by formula and by simulation."""
from collections.abc import Iterator

import numpy as np

from ....data.dedup.minhash import Lsh, band_keys, choose, signature
from ....data.dedup.minhash import permutation_coefficients as coefficients
from .svg import Axes, svg

SIZE, PAIRS = 200, 200              # shingles in the union of two sets; pairs for each similarity
SHARED = (20, 60, 90, 110, 130, 140, 150, 160, 170, 180, 190)


def simulated(lsh: Lsh, backend: str = "numpy") -> Iterator[tuple[float, float]]:
    """(Jaccard similarity, share of pairs with a band in common) of random sets, by the package's own signatures."""
    rng = np.random.default_rng(0)
    a, b = coefficients(lsh.permutations, lsh.seed)
    for shared in SHARED:
        alone = (SIZE - shared) // 2
        rows = []
        for hashes in rng.integers(0, 2 ** 63, (PAIRS, shared + 2 * alone)).astype(np.uint64):
            both, left, right = np.split(hashes, (shared, shared + alone))
            rows.append([signature(np.concatenate([both, part]), a, b) for part in (left, right)])
        keys = band_keys(np.array(rows).reshape(2 * PAIRS, -1), lsh.bands, lsh.rows).reshape(PAIRS, 2, lsh.bands)
        yield shared / (shared + 2 * alone), float((keys[:, 0] == keys[:, 1]).any(axis=1).mean())


def draw() -> str:
    similarities = np.linspace(0, 1, 201)
    axes = Axes((0, 1), (0, 1), place=(52, 12, 350, 190))
    axes.frame("Jaccard similarity s", "probability of a shared band")
    choices = [Lsh(16, 8), Lsh(32, 4), choose(0.8, 128)]
    for n, lsh in enumerate(choices):
        axes.line(similarities, lsh.found(similarities), n)
    found = dict(simulated(choices[0]))
    axes.points(found, found.values())
    axes.key([f"b = {lsh.bands}, r = {lsh.rows}" for lsh in choices], 62, 28)
    axes.write(0.03, 0.66, "dots: simulated with", size=9).write(0.03, 0.60, f"b = {choices[0].bands}, "
                                                                 f"r = {choices[0].rows}", size=9)
    return svg(__doc__ or "", 238, str(axes))
