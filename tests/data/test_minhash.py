"""MinHash and LSH: C++ against the readable definition, and the estimate against its own theory."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.dedup import minhash
from minillm.data.dedup.minhash import Lsh

CORE = minhash.load_core()
needs_core = pytest.mark.skipif(CORE is None, reason="minillm._cpp.data is not built")
quick = settings(derandomize=True, deadline=None, max_examples=60)
ODD = ["", "!!!", "one", "one two", "Café — “naïve” ＡＢ 你好，世界 x²", "x" * 63 + " y", "a" * 64,
       "a" * 128 + "b", "A1 " * 40, "😀 ßİ " * 9, "nul\0byte", " " * 64 + "z", "snake_case it's 3.14"]


@needs_core
@pytest.mark.parametrize("unit", minhash.UNITS)
@pytest.mark.parametrize("ngram", [1, 3, 7])
def test_cpp_computes_what_the_definition_says(unit, ngram):
    lsh = Lsh(bands=5, rows=27, ngram=ngram, unit=unit, seed=3)         # 135 values: two blocks and a rest
    expected, counts = minhash.signatures_of(ODD, lsh, backend="python")
    keys, _ = minhash.band_keys_of(ODD, lsh, backend="python")
    for isa in CORE.INSTRUCTION_SETS:
        for threads in (1, 3):
            found, found_counts = minhash.signatures_of(ODD, lsh, threads, "cpp", isa)
            assert np.array_equal(found, expected) and np.array_equal(found_counts, counts), isa
            assert np.array_equal(minhash.band_keys_of(ODD, lsh, threads, "cpp", isa)[0], keys), isa
    sets = minhash.shingle_sets(ODD, lsh, 2, "cpp")
    for ours, theirs in zip(sets, minhash.shingle_sets(ODD, lsh, backend="python")):
        assert np.array_equal(ours, theirs)


@needs_core
@quick
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=200), min_size=1, max_size=4), st.integers(1, 6),
       st.sampled_from(minhash.UNITS))
def test_cpp_agrees_on_any_text(texts, ngram, unit):
    lsh = Lsh(2, 3, ngram, unit)
    found, expected = (minhash.signatures_of(texts, lsh, 1, backend) for backend in ("cpp", "python"))
    for ours, theirs in zip(found, expected):
        assert np.array_equal(ours, theirs)


@needs_core
def test_jaccard_and_clusters_agree():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 40, 30)) for _ in range(40)] + [""]
    lsh = Lsh(1, 1, ngram=1)
    hashes, offsets = minhash.shingle_sets(texts, lsh)
    pairs = rng.integers(0, len(texts), (200, 2))
    exact = [len(a & b) / max(1, len(a | b)) for a, b in
             ((set(texts[i].split()), set(texts[j].split())) for i, j in pairs)]
    for backend in ("cpp", "python"):
        assert np.allclose(minhash.similarities(hashes, offsets, pairs, 2, backend), exact, rtol=0, atol=1e-15)
    pairs = rng.integers(0, 300, (140, 2))
    start = np.arange(300)
    clusters = [start.copy() for _ in range(3)]
    minhash.unite(clusters[0], pairs, "cpp")
    minhash.unite(clusters[1], pairs, "python")
    minhash.unite(clusters[2], pairs[:70])
    minhash.unite(clusters[2], pairs[70:])
    assert np.array_equal(clusters[0], clusters[1]) and np.array_equal(clusters[0], clusters[2])


def test_what_shingles_are_made_of():
    same = ["The quick, brown FOX!", "the quick brown fox", "the  quick\nbrown—fox"]
    hashes = [minhash.shingles(text, 2) for text in same]
    assert all(np.array_equal(hashes[0], other) for other in hashes) and len(hashes[0]) == 3
    assert not np.array_equal(minhash.shingles("a b c", 3), minhash.shingles("c b a", 3))
    assert len(minhash.shingles("one two", 5)) == 1 and len(minhash.shingles("?!", 5)) == 0
    assert len(minhash.shingles("ab  cd", 3, "characters")) == 3                     # "ab ", "b c", " cd"
    assert len({int(h) for i in range(3000) for h in minhash.shingles(f"word{i}", 1)}) == 3000


def test_thresholds_give_datasketchs_bands():
    lsh = pytest.importorskip("datasketch.lsh")
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9):
        for weight in (0.5, 0.9):
            found = minhash.choose(threshold, 64, weight)
            assert (found.bands, found.rows) == lsh._optimal_param(threshold, 64, 1 - weight, weight)


# ---- the theory: each value of two signatures agrees with probability s, each band of r values with s^r

def planted_pairs(similarity, count, size=60):
    """Pairs of texts of distinct words whose exact Jaccard similarity is `similarity`."""
    shared = round(2 * size * similarity / (1 + similarity))
    for pair in range(count):
        common = [f"c{pair}x{i}" for i in range(shared)]
        yield tuple(" ".join(common + [f"{side}{pair}x{i}" for i in range(size - shared)]) for side in "ab")


def rates(similarity, lsh, pairs=1500):
    """(exact similarity, share of equal values, share of pairs that share a band's key, pairs)."""
    texts = [text for pair in planted_pairs(similarity, pairs) for text in pair]
    sets, offsets = minhash.shingle_sets(texts[:2], lsh)
    exact = minhash.similarities(sets, offsets, np.array([[0, 1]]))[0]
    signatures, _ = minhash.signatures_of(texts, lsh)
    keys = minhash.band_keys(signatures, lsh.bands, lsh.rows)
    return (exact, (signatures[::2] == signatures[1::2]).mean(), (keys[::2] == keys[1::2]).any(axis=1).mean(), pairs)


def outside(observed, expected, trials, sigmas=5):
    """Whether a binomial share is further from its expectation than chance explains (5 sigma: 1 in 2 million)."""
    return abs(observed - expected) > sigmas * np.sqrt(expected * (1 - expected) / trials) + 1e-3


def departures(lsh, claimed):
    """Similarities at which the measured rate leaves the S-curve of the `claimed` bands and rows."""
    found = []
    for similarity in (0.4, 0.6, 0.75, 0.9):
        exact, _, shared, pairs = rates(similarity, lsh)
        if outside(shared, float(claimed.found(exact)), pairs):
            found.append(similarity)
    return found


def test_values_agree_as_often_as_the_sets_are_similar():
    lsh = Lsh(16, 8, ngram=1)
    for similarity in (0.1, 0.5, 0.8):
        exact, agree, _, pairs = rates(similarity, lsh, 400)
        assert not outside(agree, exact, pairs * lsh.permutations)


@pytest.mark.parametrize("bands, rows", [(16, 8), (9, 13), (25, 5)])
def test_bands_follow_the_s_curve(bands, rows):
    lsh = Lsh(bands, rows, ngram=1)
    assert departures(lsh, lsh) == []


def test_too_few_permutations_leave_the_curve():
    assert departures(Lsh(4, 8, ngram=1), claimed=Lsh(16, 8))


@pytest.mark.parametrize("broken", [
    lambda signatures, bands, rows: minhash.mix64(signatures[:, :bands].astype(np.uint64)),           # a row, no band
    lambda signatures, bands, rows: RIGHT(np.repeat(signatures[:, :rows], bands, axis=1), bands, rows)])   # one band
def test_a_broken_band_key_leaves_the_curve(broken, monkeypatch):
    monkeypatch.setattr(minhash, "band_keys", broken)
    assert departures(Lsh(16, 8, ngram=1), claimed=Lsh(16, 8))


RIGHT = minhash.band_keys


def test_even_multipliers_are_noticed(monkeypatch):
    """The permutations must be permutations: a planted a = 2^k loses the low bits."""
    right = minhash.permutation_coefficients
    monkeypatch.setattr(minhash, "permutation_coefficients", lambda count, seed:
                        (right(count, seed)[0] << np.uint32(28),
                                                                                  right(count, seed)[1]))
    exact, agree, _, pairs = rates(0.5, Lsh(16, 8, ngram=1), 300)
    assert outside(agree, exact, pairs * 128)


# ---- bad input

@pytest.mark.parametrize("arguments, message", [
    ({"threshold": 1.0}, "threshold"), ({"threshold": 0}, "threshold"), ({"permutations": 0}, "permutations"),
    ({"miss_weight": 1}, "miss_weight"), ({"ngram": 0}, "ngram"), ({"unit": "letters"}, "unit"),
    ({"ngram": True}, "ngram")])
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        minhash.choose(**arguments)


@needs_core
def test_the_core_checks_what_it_is_given():
    a = np.ones(4, np.uint32)
    with pytest.raises(ValueError, match="one length"):
        CORE.signatures(["x"], 1, False, a, a[:3], 1)
    with pytest.raises(ValueError, match="instruction set"):
        CORE.signatures(["x"], 1, False, a, a, 1, "sse9")
    with pytest.raises(ValueError, match="bands x rows"):
        CORE.band_keys(["x"], 1, False, a, a, 2, 3, 1)
    with pytest.raises(ValueError, match="n must"):
        CORE.shingle_sets(["x"], 0, False, 1)
    with pytest.raises(ValueError, match="a must have dtype uint32: got int64"):
        CORE.signatures(["x"], 1, False, a.astype(np.int64), a, 1)
    with pytest.raises(UnicodeEncodeError):
        CORE.shingle_sets(["\ud800"], 1, False, 1)
    hashes, offsets = np.arange(3, dtype=np.uint64), np.array([0, 1, 3])
    for wrong in ([[0, 2]], [[-1, 0]]):
        with pytest.raises(ValueError, match="not one of 2 sets"):
            CORE.jaccard(hashes, offsets, np.array(wrong), 1)
    with pytest.raises(ValueError, match="offsets"):
        CORE.jaccard(hashes, np.array([0, 9]), np.array([[0, 0]]), 1)
    with pytest.raises(ValueError, match="not one of 3 documents"):
        CORE.unite(np.arange(3), np.array([[0, 3]]))
    with pytest.raises(ValueError, match="parent"):
        CORE.unite(np.array([1, 1]), np.array([[0, 1]]))
