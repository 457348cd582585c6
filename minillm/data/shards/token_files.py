"""Token files of others as training data: nanoGPT's train.bin and val.bin, and the shards of llm.c.

    nanoGPT    uint16 ids and nothing else            llm.c    a header (llmc.py), then uint16 or uint32 ids

Such files do not say what their ids stand for, so a tokenizer must come with them; every id is held to it. A file
whose name has "val" in it is the validation split. If there is none, it is the end of the last file.
"""
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import llmc
from .format import CHECK_TOKENS, SIDECAR, SIDES, Shards, Split, blake2b, fingerprint, let_go
from .source import list_files

HELD_OUT = 0.05                 # of the last file, where none is for validation
PIECE = 16 * CHECK_TOKENS       # that a thread reads


class Part(NamedTuple):
    """A file, or a part of one, and what reading all of it once has found."""

    path: Path
    array: np.ndarray
    ends: int                   # how often the end-of-text token occurs
    bytes: int
    checksum: str


def token_files(paths: Sequence[Path]) -> list[Path]:
    """The .bin files that are named, or in folders: there those for training and validation by their names,
    whatever lies beside them (nanoGPT leaves its text there), or all of them if there is no text."""
    found = [token_files_of(path, alone=len(paths) == 1) for path in paths]
    if any(found) and not all(found):
        other = next(path for path, files in zip(paths, found) if not files)
        raise ValueError(f"--data {other}: token files (.bin) cannot be mixed with other data")
    return [file for files in found for file in files]


def token_files_of(path: Path, alone: bool) -> list[Path]:
    """Those of one path. A folder that is not alone has some only if it has no text."""
    if not path.is_dir():
        return [path] if path.suffix == ".bin" and path.is_file() else []
    found = [] if (path / SIDECAR).exists() else sorted(file for file in path.glob("*.bin") if file.is_file())
    texts = bool(found) and bool(list_files([path]))
    sided = [file for file in found if side_of(file) == "val" or "train" in file.stem]
    if texts and not alone:
        return []
    return sided if sided or texts else found


def shards_of(files: Sequence[Path], tokenizer: Any, progress: Callable | None = None,
              known: list | None = None) -> Shards:
    """Both splits of token files, mapped and read once. progress(done, total) counts tokens. known: meta["read"] of
    what another process has just read, so that this one need not. Raises ValueError naming a file that is damaged, of a
    version that is not known, or with an id that the tokenizer does not have."""
    sizes = np.array([text_bytes(tokenizer, id) for id in range(tokenizer.vocab_size)], np.uint16)
    found = cuts(files)
    total, done = sum(len(tokens) for _, tokens in found), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)
    if known:
        parts = [Part(path, tokens, *facts) for (path, tokens), facts in zip(found, known)]
    else:
        read(0)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = [checked(pool, path, tokens, sizes, tokenizer.eot_token, read) for path, tokens in found]
    sides = {side: [part for part in parts if side_of(part.path) == side] for side in SIDES}
    if not sides["val"]:
        sides = {"train": parts[:-1], "val": parts[-1:]}
    train, val = (split_of(sides[side]) for side in SIDES)
    return Shards(train, val, tokenizer.vocab_size, tokenizer.eot_token, parts[0].array.dtype, fingerprint(tokenizer),
                  {"read": [part[2:] for part in parts]})


def cuts(files: Sequence[Path]) -> list[tuple[Path, np.ndarray]]:
    """(path, tokens) of each file; the last one is two if no file is for validation."""
    found = [(path, mapped(path)) for path in files]
    if all(side_of(path) == "val" for path in files):
        raise ValueError(f"{files[0]}: there is no token file to train on, only for validation")
    if any(side_of(path) == "val" for path in files):
        return found
    path, tokens = found[-1]
    at = len(tokens) - max(2, int(len(tokens) * HELD_OUT))
    return [*found[:-1], (path, tokens[:at]), (path, tokens[at:])]


def side_of(path: Path) -> str:
    """"train" or "val", by its name: val.bin, tiny_shakespeare_val.bin, fineweb_val_000000.bin."""
    return "val" if "val" in path.stem.replace("-", "_").split("_") or "validation" in path.stem else "train"


def mapped(path: Path) -> np.ndarray:
    """The tokens of a file (N,), a read-only memory map."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        words = np.frombuffer(file.read(llmc.BYTES)[:12].ljust(12, b"\0"), "<i4")
    kinds: dict[int, Any] = {magic: (version, dtype) for dtype, (magic, version) in llmc.KINDS.items()}
    if words[0] not in kinds or size < llmc.BYTES:                      # nanoGPT's: ids from the first byte on
        if not size or size % 2:
            raise ValueError(f"{path}: {size} bytes are no uint16 ids, and there is no header of llm.c")
        return np.memmap(path, "<u2", "r")
    version, dtype = kinds[words[0]]
    if words[1] != version:
        raise ValueError(f"{path}: version {words[1]} of llm.c's token files is not known: expected {version}")
    expected = llmc.BYTES + int(words[2]) * dtype.itemsize
    if words[2] < 1 or size != expected:
        raise ValueError(f"{path} has {size} bytes, expected {expected} by its header: it is damaged or was truncated")
    return np.memmap(path, dtype, "r", llmc.BYTES)


def checked(pool: ThreadPoolExecutor, path: Path, tokens: np.ndarray, sizes: np.ndarray,
            eot_token: int | None, read: Callable[[int], None]) -> Part:
    """Reads all tokens once, and tells `read` of each piece. Raises ValueError for an id outside the vocabulary."""
    pieces, ends, size, digest = [tokens[i:i + PIECE] for i in range(0, len(tokens), PIECE)], 0, 0, blake2b()
    found = pool.map(lambda piece: read_piece(path, piece, sizes, eot_token), pieces)
    for piece, (some_ends, some_bytes, checksum) in zip(pieces, found):
        ends, size = ends + some_ends, size + some_bytes
        digest.update(checksum)
        read(len(piece))
    return Part(path, tokens, ends, size, digest.hexdigest())


def read_piece(path: Path, tokens: np.ndarray, sizes: np.ndarray, eot_token: int | None) -> tuple[int, int, bytes]:
    """(ends of text, bytes of text, checksum)."""
    ends, total, digest = 0, 0, blake2b()
    for start in range(0, len(tokens), CHECK_TOKENS):
        part = tokens[start:start + CHECK_TOKENS]
        if part.max() >= len(sizes):
            raise ValueError(f"{path} holds id {part.max()}, but the tokenizer has {len(sizes)} ids: it is another's")
        ends += int(np.count_nonzero(part == eot_token))
        total += int(np.take(sizes, part, mode="clip").sum(dtype=np.int64))      # without a second check of the ids
        digest.update(part.view(np.uint8))
        let_go(part)
    return ends, total, digest.digest()


def split_of(parts: Sequence[Part]) -> Split:
    return Split([part.array for part in parts], sum(len(part.array) for part in parts),
                 max(1, sum(part.ends for part in parts)), sum(part.bytes for part in parts),
                 [part.path for part in parts], [part.checksum for part in parts])


def text_bytes(tokenizer: Any, id: int) -> int:
    """UTF-8 bytes of the text that an id stands for; a special token stands for none."""
    if id in tokenizer.special_tokens.values():
        return 0
    try:
        return len(tokenizer.token_bytes(id))
    except ValueError:                                                  # an id that stands for nothing
        return 0
