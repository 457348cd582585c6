"""From documents to training batches in one call: tokenizer (given, or trained on a sample), shards, batches.

The shards and the tokenizer are kept in the run directory, so a resumed run does not tokenize again.
"""
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from pathlib import Path

from ...models.packing import Batch
from ...storage.atomic import AnyPath, atomic_write
from ...storage.lock import exclusive
from ...tokenizer import Tokenizer
from ...tokenizer.chat_template import save_tokenizer
from .format import Shards, fingerprint, open_shards
from .loader import Loader, sequential
from .write import write_shards

SAMPLE_BYTES = 8_000_000      # text that a tokenizer is trained on when none is given


class TrainingData:
    """What `train` needs: batches as a function of (step, micro), a validation pass, sizes, and a fingerprint."""

    def __init__(self, shards: Shards, block_size: int, batch_size: int, seed: int = 0, accumulate: int = 1) -> None:
        """Raises ValueError when a split is too small for one block."""
        self.shards, self.block_size, self.batch_size = shards, block_size, batch_size
        self.loader = Loader(shards.train, block_size, batch_size, seed, accumulate)
        self.validation_bytes = shards.val.bytes
        self.validation_tokens = shards.val.tokens - 1                   # the first token is not predicted
        checksums = "".join(shards.train.checksums + shards.val.checksums)
        self.fingerprint = hashlib.blake2b(checksums.encode(), digest_size=16).hexdigest()

    def batch(self, step: int, micro: int = 0) -> Batch:
        """A Batch of (batch_size, block_size) int64."""
        return Batch(*self.loader.batch(step, micro))

    def validation(self, batches: int = 0) -> Iterator[Batch]:
        """Iterator of Batch over the whole validation split, once; or of at most so many, drawn over all of it."""
        return starmap(Batch, sequential(self.shards.val.arrays, self.block_size, self.batch_size, batches))


def prepare(documents: Callable[[], Iterable[tuple[str, str]]], directory: AnyPath, tokenizer: Tokenizer | None = None,
            vocab_size: int = 8192, source: str = "", progress: Callable | None = None) -> tuple[Tokenizer, Shards]:
    """Tokenize documents [(name, text), ...] into directory/data; returns (tokenizer, shards).

    documents: a function that returns a fresh iterator, since a tokenizer needs a pass of its own. tokenizer: None
    trains one on SAMPLE_BYTES of evenly spaced documents: of vocab_size, or of what little text yields.
    progress(label) -> progress(done, total).
    source: says what the documents and the tokenizer are; finished shards of the same source are used again.
    """
    directory = Path(directory)
    note = directory / "data" / "source.txt"
    with exclusive(directory):
        if source and note.exists() and note.read_text(encoding="utf-8") == source:
            shards = open_shards(directory / "data", progress and progress("checking"))
            return tokenizer_of(directory, shards), shards
        note.unlink(missing_ok=True)
        if tokenizer is None:
            tokenizer = Tokenizer.train(sample(documents(), SAMPLE_BYTES), vocab_size, stop_early=True,
                                        progress=progress and progress("tokenizer"))
        save_tokenizer(tokenizer, directory)
        write_shards(documents(), tokenizer, directory / "data", progress=progress and progress("tokenizing"))
        with atomic_write(note) as file:
            file.write(source)
        return tokenizer, open_shards(directory / "data")


def tokenizer_of(directory: AnyPath, shards: Shards) -> Tokenizer:
    """The Tokenizer in a directory. Raises ValueError if it is not the one that wrote the shards."""
    tokenizer = Tokenizer.from_pretrained(directory)
    if fingerprint(tokenizer) != shards.fingerprint:
        raise ValueError(f"{directory}/tokenizer.json is not the tokenizer that wrote the shards")
    return tokenizer


def sample(documents: Iterable[tuple[str, str]], limit: int) -> list[str]:
    """Texts of about `limit` bytes in all: of a longer stream every second document, then every fourth, and so on."""
    kept, size, stride = [], 0, 1
    for index, (_, text) in enumerate(documents):
        if index % stride:
            continue
        kept.append(text)
        size += len(text)
        while size > 2 * limit and len(kept) > 1:
            kept, stride = kept[::2], 2 * stride
            size = sum(map(len, kept))
    return [text[:limit] for text in kept]
