"""The tokenizer and deduplication in C++ beside their Python twins: equal answers to any text and any ids."""

import numpy as np

from minillm import Tokenizer
from minillm.data.dedup import minhash
from minillm.tokenizer.fast import load_extension

from . import mutations as m
from .file_targets import TEXTS
from .targets import Missing, target

SPECIALS = ["<|endoftext|>", "<|end|>", "<|", "<|endoftext|><|end|>"]


def outcome(call, *arguments):
    """What a call gives, or that it refuses."""
    try:
        return call(*arguments)
    except ValueError as error:
        return f"ValueError: {str(error)[:20]}"


@target()
def tokenizer(folder):
    if load_extension("auto") is None:
        raise Missing("minillm._cpp.text")
    pairs = []
    for pattern in ("gpt2", "cl100k", "o200k"):
        fast = Tokenizer.train(TEXTS, 320, special_tokens=SPECIALS, pattern=pattern, stop_early=True)
        pairs.append((fast, Tokenizer(*fast._parts(), "python")))

    def ids_of(rng, size):
        ids = [
            rng.choice((rng.randrange(size), rng.randrange(size), size, -1, 2**31, 2**63 - 1))
            if rng.random() < 0.1
            else rng.randrange(size)
            for _ in range(rng.randint(0, 30))
        ]
        form = rng.choice(
            (
                list,
                tuple,
                iter,
                lambda ids: np.array(ids, "i8"),
                lambda ids: np.array(ids, "i8")[::-1],
                lambda ids: np.array(ids, ">i8"),
                lambda ids: np.array(ids, "i8").astype("u2"),
                lambda ids: np.array(ids, float),
                lambda ids: np.array([ids]),
                lambda ids: np.array(ids, object),
            )
        )
        return lambda: form(ids)

    def draw(rng):
        fast, slow = rng.choice(pairs)
        texts = [m.text(rng) for _ in range(rng.randint(0, 5))]
        allowed = rng.choice((frozenset(), "all", frozenset(rng.sample(SPECIALS, 2))))
        disallowed = rng.choice((frozenset(), "all"))
        ids = ids_of(rng, fast.vocab_size)

        def run():
            for text in texts:
                assert outcome(fast.encode, text, allowed, disallowed) == outcome(
                    slow.encode, text, allowed, disallowed
                ), text
                assert list(fast.encode_iterable(text, allowed, ())) == fast.encode(text, allowed, ()), text
                assert fast.encode_bytes(text.encode("utf-16", "surrogatepass")) == slow.encode_bytes(
                    text.encode("utf-16", "surrogatepass")
                )
            batches = [outcome(twin.encode_batch, texts, allowed, disallowed, 2) for twin in (fast, slow)]
            assert batches[0] == batches[1], texts
            decoded = [outcome(twin.decode_bytes, ids()) for twin in (fast, slow)]
            assert decoded[0] == decoded[1], (decoded, ids())

        return sum(map(len, texts)) * 4, run

    return draw


@target()
def training(folder):
    """Vocabularies that the two learn from one corpus."""
    if load_extension("auto") is None:
        raise Missing("minillm._cpp.text")

    def draw(rng):
        texts = [m.text(rng, 100) for _ in range(rng.randint(1, 4))]
        settings = dict(
            vocab_size=256 + 2 + rng.randint(0, 60),
            pattern=rng.choice(("gpt2", "cl100k", "o200k")),
            ties=rng.choice(("ids", "bytes", "values")),
            special_tokens=SPECIALS[:2],
            stop_early=rng.random() < 0.7,
        )

        def run():
            found = [
                outcome(lambda backend=backend: Tokenizer.train(texts, backend=backend, **settings).merges)
                for backend in ("cpp", "python")
            ]
            assert found[0] == found[1], (texts, settings)

        return sum(map(len, texts)) * 4, run

    return draw


@target()
def dedup(folder):
    if load_extension("auto", "data") is None:
        raise Missing("minillm._cpp.data")

    def draw(rng):
        texts = [m.text(rng, 60).encode("utf-8", "replace").decode() for _ in range(rng.randint(0, 6))]
        lsh = minhash.Lsh(
            rng.randint(1, 9),
            rng.randint(1, 5),
            rng.choice((1, 2, 5, 2**16)),
            rng.choice(minhash.UNITS),
            rng.randrange(2**32),
        )
        threads = rng.choice((1, 2, 3))

        def both(function, *arguments):
            found = [
                function(*arguments, **({} if function is minhash.unite else {"threads": threads}), backend=backend)
                for backend in ("cpp", "python")
            ]
            for one, two in zip(*map(np.atleast_1d if isinstance(found[0], np.ndarray) else tuple, found)):
                np.testing.assert_array_equal(one, two, str(texts))
            return found[0]

        def run():
            both(minhash.signatures_of, texts, lsh)
            both(minhash.band_keys_of, texts, lsh)
            hashes, offsets = both(minhash.shingle_sets, texts, lsh)
            if texts:
                pairs = np.array([[rng.randrange(len(texts)) for _ in range(2)] for _ in range(5)])
                both(minhash.similarities, hashes, offsets, pairs)
                parents = [np.arange(len(texts)) for _ in range(2)]
                for parent, backend in zip(parents, ("cpp", "python")):
                    minhash.unite(parent, pairs, backend)
                np.testing.assert_array_equal(*parents)

        return sum(map(len, texts)) * 4, run

    return draw
