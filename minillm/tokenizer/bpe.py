"""Byte-level BPE: a word becomes tokens by replaying the merges in the order they were learned.

A word starts as its UTF-8 bytes, so any text at all can be encoded and nothing is ever "unknown". Among the
neighbouring pairs that were ever merged, the one learned first (lowest rank) is merged next, until none is left
(Sennrich et al. 2016; the byte alphabet is Radford et al. 2019). Decoding is the concatenation of the tokens' bytes.

Ids: 256 single bytes in the order of GPT-2's table, the merges in order, then the special tokens.
This module is the specification of the fast tokenizer: both give identical ids.
"""
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from minillm.tokenizer import formats, train
from minillm.tokenizer.merge import WordCache, encode_word
from minillm.tokenizer.pretokenize import compile_pattern, safe_pieces, split_special


class Tokenizer:
    """A byte-level BPE vocabulary with its merges, special tokens and pre-tokenization pattern.

    vocab_size       number of ids, special tokens included
    special_tokens   dict text -> id            eot_token   id of <|endoftext|>, or None
    merges           list of (bytes, bytes), in order of rank
    pattern          name of the pre-tokenization pattern, "gpt2" or "cl100k"
    """

    def __init__(self, tokens: list[bytes], merges: list[tuple[bytes, bytes]],
                 special_tokens: dict[str, int], pattern: str = "gpt2"):
        """`tokens[id]` are a token's bytes. Raises ValueError if the parts contradict each other."""
        self.merges = list(merges)
        self.special_tokens = dict(special_tokens)
        self.pattern = pattern
        self.vocab_size = len(tokens)
        self.eot_token = self.special_tokens.get("<|endoftext|>")
        self._tokens = dict(enumerate(tokens))      # not a list: -1 must not be the last token
        ids = ordinary_ids(tokens, self.special_tokens)
        self._ranks, made = rank_merges(self.merges, ids)
        byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._words = WordCache(partial(encode_word, byte_ids=byte_ids, ranks=self._ranks, made=made))
        self._find_words = compile_pattern(pattern).findall

    @classmethod
    def train(cls, files_or_texts, vocab_size: int = 8192, special_tokens: Iterable[str] = ("<|endoftext|>",),
              pattern: str = "gpt2", progress: Callable | None = None) -> "Tokenizer":
        """Learn a vocabulary. A str is one text, a pathlib.Path one UTF-8 file, an iterable a series of either.

        Stops early when the text has no pair left to merge; `vocab_size` of the result says where. Special tokens'
        texts in the corpus are skipped. `progress(done, total)` is called every few merges.
        Raises ValueError (vocab_size below 256 + specials, no text, unknown pattern, not UTF-8), FileNotFoundError.
        """
        specials = check_specials(special_tokens)
        n_merges = check_vocab_size(vocab_size, len(specials))
        counts = train.count_words(files_or_texts, pattern, frozenset(specials))
        if n_merges and not counts:
            raise ValueError("files_or_texts holds no text to learn from")
        tokens = [bytes([byte]) for byte in formats.BYTE_ORDER]
        merges = []
        for first, second in train.learn_merges(counts, n_merges, progress):
            merges.append((tokens[first], tokens[second]))
            tokens.append(tokens[first] + tokens[second])
        special_ids = {text: len(tokens) + i for i, text in enumerate(specials)}
        return cls(tokens + [text.encode("utf-8") for text in specials], merges, special_ids, pattern)

    def encode(self, text: str, allowed_special: Collection[str] | str = frozenset()) -> list[int]:
        """Token ids of a text. Only the special tokens in `allowed_special` (a set, or "all") become their id;
        any other special token's text is encoded like ordinary text.

        Surrogate pairs are joined and lone surrogates replaced by U+FFFD, as tiktoken does; every other text
        decodes to itself. Raises ValueError if text is no str or an allowed special token does not exist.
        """
        return list(self.encode_iterable([text], allowed_special))

    def encode_batch(self, texts: Iterable[str], allowed_special: Collection[str] | str = frozenset()
                     ) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text, allowed_special) for text in texts]

    def encode_iterable(self, lines: Iterable[str], allowed_special: Collection[str] | str = frozenset()
                        ) -> Iterator[int]:
        """The ids of "".join(lines), one at a time, in constant memory: lines or chunks may be cut anywhere.

        Text is held back until a place where a cut cannot change the ids (see pretokenize.safe_pieces).
        """
        return chain.from_iterable(self._encode(lines, self._check_allowed(allowed_special)))

    def encode_array(self, text: str, allowed_special: Collection[str] | str = frozenset()) -> np.ndarray:
        """`encode` into a (n,) array: uint16 if every id fits, else uint32."""
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        return np.fromiter(self.encode_iterable([text], allowed_special), dtype)

    def _encode(self, chunks: Iterable[str], allowed: frozenset[str]) -> Iterator[tuple[int, ...]]:
        """The ids of a stream of text, word by word."""
        for piece in safe_pieces(chunks, allowed):
            for segment, is_special in split_special(piece, allowed):
                if is_special:
                    yield (self.special_tokens[segment],)
                else:
                    yield from map(self._words.__getitem__, self._find_words(segment))

    def _check_allowed(self, allowed_special) -> frozenset[str]:
        if allowed_special == "all":
            return frozenset(self.special_tokens)
        if isinstance(allowed_special, str):
            raise ValueError(f'allowed_special must be "all" or a set of special tokens: got {allowed_special!r}')
        for text in allowed_special:
            if text not in self.special_tokens:
                raise ValueError(f"allowed_special: {text!r} is no special token of this vocabulary")
        return frozenset(allowed_special)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The tokens' bytes, joined. Raises ValueError naming an id that does not exist."""
        ids = ids.tolist() if isinstance(ids, np.ndarray) else ids
        try:
            return b"".join(map(self._tokens.__getitem__, ids))
        except KeyError as error:
            raise ValueError(f"id {error.args[0]} is not in the vocabulary of {self.vocab_size}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token."""
        return self.decode_bytes([id])

    def save(self, directory) -> None:
        """Write directory/tokenizer.json (atomically), which `tokenizers` and `transformers` read."""
        formats.write_tokenizer_json(directory, *self._parts())

    def save_vocab_merges(self, directory) -> None:
        """Write GPT-2's pair of files, directory/vocab.json and directory/merges.txt."""
        formats.write_vocab_merges(directory, *self._parts()[:3])

    def _parts(self):
        return [self._tokens[i] for i in range(self.vocab_size)], self.merges, self.special_tokens, self.pattern

    @classmethod
    def from_pretrained(cls, directory_or_file) -> "Tokenizer":
        """Read a tokenizer.json, or a directory that holds one or else vocab.json and merges.txt.

        Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
        """
        path = Path(directory_or_file)
        if path.is_dir():
            if not (path / "tokenizer.json").exists() and (path / "vocab.json").exists():
                return cls.from_vocab_merges(path / "vocab.json", path / "merges.txt")
            path = path / "tokenizer.json"
        with formats.errors_name(path):
            return cls(*formats.read_tokenizer_json(path))

    @classmethod
    def from_vocab_merges(cls, vocab_json, merges_txt, special_tokens: Iterable[str] = ("<|endoftext|>",),
                          pattern: str = "gpt2") -> "Tokenizer":
        """Read GPT-2's pair of files. A special token that the vocabulary lacks gets the next free id."""
        specials = check_specials(special_tokens)
        with formats.errors_name(merges_txt):
            merges = formats.read_merges(merges_txt)
        with formats.errors_name(vocab_json):
            tokens, special_ids = formats.read_vocab(vocab_json, specials)
        with formats.errors_name(f"{vocab_json} and {merges_txt}"):
            return cls(tokens, merges, special_ids, pattern)


def ordinary_ids(tokens: list[bytes], special_tokens: dict[str, int]) -> dict[bytes, int]:
    """bytes -> id of the tokens that merging can make. Raises ValueError if two share their bytes or a byte lacks."""
    special_ids = set(special_tokens.values())
    ids = {}
    for i, token in enumerate(tokens):
        if i not in special_ids and ids.setdefault(token, i) != i:
            raise ValueError(f"tokens {ids[token]} and {i} are both {token!r}")
    for byte in range(256):
        if bytes([byte]) not in ids:
            raise ValueError(f"no token for the single byte {byte:#04x}: not a byte-level vocabulary")
    for text in special_tokens:
        if formats.chars_to_bytes(text) in ids:
            raise ValueError(f"special token {text!r} is written like an ordinary token")
    return ids


def rank_merges(merges: list[tuple[bytes, bytes]], ids: dict[bytes, int]) -> tuple[dict, list[int]]:
    """(id, id) -> rank, and rank -> id made. Raises ValueError unless parts are made before they are used.

    (Every merge that makes a token must stand before the first that uses it: replaying in order depends on it.)
    """
    ranks, made, known, used = {}, [], {bytes([byte]) for byte in range(256)}, set()
    for rank, (first, second) in enumerate(merges):
        token = first + second
        if token not in ids or first not in known or second not in known or token in used:
            raise ValueError(f"merge {rank} of {first!r} and {second!r}: the result must be a token, "
                             "its parts made by earlier merges, and only later merges may use it")
        known.add(token)
        used.update((first, second))
        made.append(ids[token])
        if ranks.setdefault((ids[first], ids[second]), rank) != rank:
            raise ValueError(f"merge {rank} of {first!r} and {second!r} is there twice")
    return ranks, made


def check_specials(special_tokens: Iterable[str]) -> list[str]:
    """The special tokens as a list. Raises ValueError unless they are distinct non-empty texts."""
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a list of str: got the str {special_tokens!r}")
    specials = list(special_tokens)
    for text in specials:
        if not isinstance(text, str) or not text or any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"special_tokens must be non-empty texts without surrogates: got {text!r}")
    if len(set(specials)) < len(specials):
        raise ValueError(f"special_tokens must be distinct: got {specials}")
    return specials


def check_vocab_size(vocab_size: int, n_special: int) -> int:
    """The number of merges that fit. Raises ValueError naming vocab_size if the bytes and specials do not."""
    least = 256 + n_special
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, (int, np.integer)) or vocab_size < least:
        raise ValueError(f"vocab_size must be an integer of at least {least} "
                         f"(256 bytes and {n_special} special tokens): got {vocab_size!r}")
    return int(vocab_size) - least
