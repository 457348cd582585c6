"""Clusters of exact and near-duplicates: pairs of documents with equal digests, and candidate pairs that share a band.

Every function is pure, of rows of the table and band keys: pipeline.py calls them in one process with what does not fit
into memory on the disk, on_dask.py on many machines.
"""
import numpy as np

from ..batches import Records
from . import minhash
from .table import KEPT, NEAR, by_rank

NEIGHBOURS = 8              # in a large bucket each document is compared with this many, and with the best


def sign_batch(batch: Records, lsh: minhash.Lsh, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(entries,) uint64 band keys and (entries,) int64 places in the batch; a text without a word has none."""
    keys, counts = minhash.band_keys_of([text for _, text, _ in batch], lsh, threads)
    some = np.flatnonzero(counts)
    return keys[some].ravel(), np.repeat(some, lsh.bands)


def copies_of(documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(copies, 2) int64: a better one of the same digest, and the copy; documents and rows (n,) belong together."""
    order = np.lexsort((rows["tie"], -rows["bytes"], rows["digest"][:, 1], rows["digest"][:, 0]))
    documents, digest = documents[order], rows["digest"][order]
    copy = np.flatnonzero((digest[1:] == digest[:-1]).all(axis=1)) + 1
    return np.column_stack([documents[copy - 1], documents[copy]])


def bucket_pairs(keys: np.ndarray, documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(pairs, 2) int64, the lesser number first: in each bucket, everyone with the NEIGHBOURS before and with the best.

    keys (n,) in ascending order, documents (n,) and their rows of the table (n,).
    In the order of rank, by length, so that neighbours have the best chance to be similar, and a bucket of m gives at
    most (NEIGHBOURS + 1) m pairs; up to NEIGHBOURS + 1 documents that is every pair.
    """
    alone = np.insert(keys[1:] != keys[:-1], 0, True) & np.append(keys[1:] != keys[:-1], True)
    keys, documents, rows = keys[~alone], documents[~alone], rows[~alone]
    order = np.lexsort((rows["tie"], -rows["bytes"], keys))
    keys, documents = keys[order], documents[order]
    start = np.searchsorted(keys, keys)                                 # (n,) where each one's bucket begins
    place = np.arange(len(keys)) - start
    found = [np.column_stack([documents[start], documents])[place > NEIGHBOURS]]
    for step in range(1, NEIGHBOURS + 1):
        later = np.flatnonzero(place >= step)
        found.append(np.column_stack([documents[later - step], documents[later]]))
    return np.sort(np.concatenate(found), axis=1)


def mark_near(table: np.ndarray, state: np.ndarray, parents: np.ndarray) -> None:
    """In each cluster all but the best of those that are still there become NEAR."""
    members = np.flatnonzero(state == KEPT)
    members = members[np.bincount(parents[members], minlength=len(parents))[parents[members]] > 1]
    members = by_rank(table, members, parents[members])
    state[members[1:][parents[members[1:]] == parents[members[:-1]]]] = NEAR
