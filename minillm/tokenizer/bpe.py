"""Byte-level byte-pair encoding (BPE): a word becomes tokens by replaying the merges in the order they were learned.

A word starts as its UTF-8 bytes, so any text at all can be encoded and nothing is ever "unknown". Among the
neighbouring pairs that were ever merged, the one learned first (lowest rank) is merged next, until none is left
(Sennrich et al. 2016; the byte alphabet is Radford et al. 2019). Decoding is the concatenation of the tokens' bytes.

Ids: 256 single bytes in the order of GPT-2's table, the merges in order, then the special tokens.
This module is the specification of the fast tokenizer (fast.py, csrc/text), which does the work where it is built:
both give identical ids.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex

from ..storage.atomic import AnyPath
from . import fast, formats, train
from .added import Piece, both_stages, cut_out
from .checks import (
    Specials,
    allowed_specials,
    check_specials,
    check_text,
    check_vocab_size,
    disallowed_specials,
    integers,
    ordinary_ids,
    rank_merges,
)
from .files import holds_ranks, read_document, tokenizer_file, written_name
from .jinja_template import read_templates
from .merge import SHORT, WordCache, encode_word
from .offsets import located, token_spans
from .pretokenize import safe_pieces, well_formed, word_finder
from .rank_files import BEGIN, encoding_of
from .roles import document_end, opened, read_roles, said
from .rules import NO_RULES, Rules, TextRules
from .sentencepiece import SentencePiece
from .sentencepiece_files import is_sentencepiece
from .stream import text_pieces, text_with_offsets
from .train import Corpus

NOT_UTF8 = regex.compile("([\udc80-\udcff]+)")      # how the codec's "surrogateescape" writes such bytes


class Tokenizer:
    """A byte-level BPE vocabulary with its merges, special tokens and pre-tokenization pattern.

    vocab_size       number of ids, special tokens included
    special_tokens   dict text -> id            eot_token   id of <|endoftext|>, or None
    merges           list of (bytes, bytes), in order of rank
    pattern          name of the pre-tokenization pattern: "gpt2", "llama3", ... (pretokenize.py) or a registered one
    rules            added tokens that are not special, normalizer, template, ... (rules.py)
    backend          "cpp" or "python": who encodes; the ids are the same
    cutter           "cpp" or "regex": who cuts texts into words. A pattern that C++ does not know costs its speed
    """

    def __init__(self, tokens: list[bytes | None], merges: list[tuple[bytes, bytes]],
                 special_tokens: dict[str, int], pattern: str = "gpt2", backend: str = "auto", rules: Rules = NO_RULES):
        """`tokens[id]` are a token's bytes, None for an id that stands for nothing. backend: "auto" is C++ if built.
        rules: what else is done to a text (rules.py).

        Raises ValueError if the parts contradict each other, ImportError if "cpp" is asked for and not built.
        """
        self.merges = list(merges)
        self.special_tokens = dict(special_tokens)
        self.pattern = pattern
        self.vocab_size = len(tokens)
        self.eot_token = self.special_tokens.get("<|endoftext|>")
        self.ends: frozenset[int] = frozenset()         # the ids that end a text, if the files of a model say so
        self.roles: dict[str, str] = {}                 # such as {"bos_token": "<s>"}, by the files beside it
        self.template: Any = None                       # a directory's own chat template (jinja_template.Templates)
        self._tokens = {id: token for id, token in enumerate(tokens) if token is not None}   # a list would take id -1
        self.rules, self._texts = rules, TextRules(rules, self.special_tokens)
        self.before, self.after = list(rules.before), list(rules.after)         # what the template puts around a text
        ids = ordinary_ids(tokens, self._texts.added, self.merges)
        self._ranks, made, simple = rank_merges(self.merges, ids)
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        whole = ids if rules.ignore_merges else {}
        self._words = WordCache(partial(encode_word, byte_ids=self._byte_ids, ranks=self._ranks, made=made,
                                        short=SHORT if simple else 0, whole=whole))
        self._find_words = word_finder(pattern)
        triples = [(left, right, made[rank]) for (left, right), rank in self._ranks.items()]
        self._fast = fast.encoder(self._tokens, self.vocab_size, self._byte_ids, triples, self._texts, pattern, backend,
                                  whole)
        self.backend = "cpp" if self._fast else "python"
        self.cutter = "cpp" if self._fast and not self._fast.find_words else "regex"

    @classmethod
    def train(cls, files_or_texts: Corpus, vocab_size: int = 8192, special_tokens: Iterable[str] = ("<|endoftext|>",),
              pattern: str = "gpt2", progress: Callable | None = None, ties: str = "ids", backend: str = "auto",
              threads: int | None = None, stop_early: bool = False) -> "Tokenizer":
        """Learn a vocabulary. A str is one text, a pathlib.Path one UTF-8 file, an iterable a series of either.

        Special tokens' texts in the corpus are skipped. `progress(done, total)` is called every few merges. `ties`:
        which of two equally frequent pairs comes first (train.py). `threads` count words (C++ only; None: all cores).
        stop_early: take what there is, a smaller vocabulary, if the corpus has no pair left to merge.
        Raises FileNotFoundError, and ValueError: vocab_size below 256 + specials, or larger than the corpus can fill;
        no text, unknown pattern, not UTF-8.
        """
        specials = check_specials(special_tokens)
        n_merges = check_vocab_size(vocab_size, len(specials))
        learned = learn(files_or_texts, pattern, frozenset(specials), n_merges, progress, ties, backend, threads)
        if len(learned) < n_merges and not stop_early:
            most = 256 + len(learned) + len(specials)
            raise ValueError(f"vocab_size is too large: the corpus yields at most {most} tokens (256 bytes, "
                             f"{len(learned)} merges, {len(specials)} special): got {vocab_size}; ask for less, or to "
                             "stop early")
        tokens = [bytes([byte]) for byte in formats.BYTE_ORDER]
        merges = []
        for first, second in learned:
            merges.append((tokens[first], tokens[second]))
            tokens.append(tokens[first] + tokens[second])
        special_ids = {text: len(tokens) + i for i, text in enumerate(specials)}
        return cls([*tokens, *(text.encode("utf-8") for text in specials)], merges, special_ids, pattern, backend)

    def encode(self, text: str, allowed_special: Specials = (), disallowed_special: Specials = "all") -> list[int]:
        """Token ids of a text, where special tokens are treated as tiktoken does:

        allowed_special     a set, or "all": their text becomes their id, the longest where several begin at one place
        disallowed_special  a set, or "all" that are not allowed: their text must not occur. So by default no text of
                            somebody else's can smuggle one in, nor pass for one. `()`: it is ordinary text.

        Surrogate pairs are joined and lone surrogates replaced by U+FFFD, as tiktoken does; every other text decodes to
        itself. Raises ValueError if text is no str, an allowed token does not exist, or a disallowed one occurs.
        """
        return self._list_of(self.encode_array(text, allowed_special, disallowed_special))

    def encode_ordinary(self, text: str) -> list[int]:
        """`encode` that knows no special tokens: their text is ordinary text. For documents to train a model on."""
        return self.encode(text, disallowed_special=())

    def encode_continuation(self, text: str) -> list[int]:
        """`encode_ordinary` of a text that goes on with another: the same here, but not for a SentencePiece."""
        return self.encode_ordinary(text)

    def encode_array(self, text: str, allowed_special: Specials = (),
                     disallowed_special: Specials = "all") -> np.ndarray:
        """`encode` into a (n,) array: uint16 if every id fits, else uint32."""
        allowed = self._check_allowed(allowed_special)
        check_text(text, self._check_disallowed(disallowed_special, allowed))
        if self._fast and self._texts.unchanged(text):
            return self._fast.encode(text, allowed)
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        if self._fast:
            return np.concatenate([np.empty(0, dtype), *self._fast_parts(text, allowed)])
        return np.fromiter(chain.from_iterable(self._encode(text, allowed)), dtype)

    def encode_batch(self, texts: Iterable[str], allowed_special: Specials = (), disallowed_special: Specials = "all",
                     threads: int | None = None) -> list[list[int]]:
        """`encode` of each text, on `threads` threads (default: one a core; C++ only)."""
        ids, ends = self.encode_batch_array(texts, allowed_special, disallowed_special, threads)
        return [self._list_of(ids[start:end]) for start, end in pairwise(ends)]

    def encode_batch_array(self, texts: Iterable[str], allowed_special: Specials = (),
                           disallowed_special: Specials = "all", threads: int | None = None
                           ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of n texts one after the other, and (n + 1,) int64: text i has ids[ends[i]:ends[i + 1]]."""
        texts, threads, allowed = list(texts), fast.count_threads(threads), self._check_allowed(allowed_special)
        disallowed = self._check_disallowed(disallowed_special, allowed)
        for text in texts:
            check_text(text, disallowed)
        if self._fast and all(map(self._texts.unchanged, texts)):
            return self._fast.encode_batch(texts, allowed, threads)
        arrays = [self.encode_array(text, allowed, ()) for text in texts] or [self.encode_array("")]
        return np.concatenate(arrays), np.cumsum([0, *map(len, arrays[:len(texts)])], dtype=np.int64)

    def encode_iterable(self, lines: Iterable[str], allowed_special: Specials = (),
                        disallowed_special: Specials = "all") -> Iterator[int]:
        """The ids of "".join(lines), one at a time, in constant memory: lines or chunks may be cut anywhere.

        Text is held back until a place where a cut cannot change the ids (see pretokenize.safe_pieces): all of it, if
        the rules look beyond such places (a normalizer, a prefix space, added tokens that look at their neighbours).
        """
        allowed = self._check_allowed(allowed_special)
        disallowed = self._check_disallowed(disallowed_special, allowed)
        added = allowed | disallowed | self._texts.others
        pieces = safe_pieces(lines, added, self.pattern) if self._texts.simple else ["".join(lines)]
        return chain.from_iterable(self.encode(piece, allowed, disallowed) for piece in pieces)

    def encode_with_offsets(self, text: str, allowed_special: Specials = (),
                            disallowed_special: Specials = "all") -> tuple[list[int], np.ndarray]:
        """Ids, and where each token lies in the text: (n, 2) int64, so text[start:end] holds the token's bytes.

        Positions count characters; a token that is part of a character has that character's place, as at Hugging Face,
        and so has one of what a normalizer made of several. Raises ValueError if the pattern drops or adds text.
        """
        allowed = self._check_allowed(allowed_special)
        check_text(text, self._check_disallowed(disallowed_special, allowed))
        ids: list[int] = []
        spans = [np.empty((0, 2), np.int64)]
        for piece, id, origins in located(well_formed(text), self._texts, allowed):
            found = [id] if id is not None else self._encode_piece(piece)
            lengths = [len(self._tokens[token]) for token in found] if id is None else [len(piece.encode("utf-8"))]
            if sum(lengths) != len(piece.encode("utf-8")):
                raise ValueError("this tokenizer's pattern drops or adds text: its tokens have no places in it")
            ids += found
            spans.append(token_spans(piece, lengths, origins))
        return ids, np.concatenate(spans)

    def _fast_parts(self, text: str, allowed: frozenset[str]) -> Iterator[np.ndarray]:
        """The ids of a text that is changed before it is cut, part by part."""
        assert self._fast
        late = self._texts.plain and not self._fast.find_words      # then C++ finds those that are late
        raw, _ = both_stages(self._texts.added, allowed, self._texts.normalize)
        for piece, id in raw.pieces(well_formed(text)) if late else self._pieces(text, allowed):
            if id is not None:
                yield np.array([id], self._fast.dtype)
            elif late:
                yield self._fast.encode_late(self._texts.normalize(piece) if self._texts.normalize else piece, allowed)
            else:
                yield self._fast.encode_plain(piece)

    def _encode_piece(self, piece: str) -> list[int]:
        """The ids of what is between added tokens."""
        if self._fast:
            return self._list_of(self._fast.encode_plain(piece))
        return [id for word in self._find_words(piece) for id in self._words[word]]

    def _list_of(self, ids: np.ndarray) -> list[int]:
        return fast.id_list(self._fast.core if self._fast else None, ids, self.vocab_size)

    def with_template(self, ids: Sequence[int]) -> list[int]:
        """The ids with what the tokenizer's files put around every text, such as Llama 3's <|begin_of_text|>: what
        `tokenizers` gives with add_special_tokens=True. No second time before ids that begin that way."""
        return [*opened(self, list(ids)), *self.after]

    def _pieces(self, text: str, allowed: frozenset[str]) -> Iterator[Piece]:
        """(text, None), as it is cut into words, and (text, id) of each added token, in order."""
        for piece, id in cut_out(well_formed(text), self._texts.added, allowed, self._texts.normalize):
            yield (piece if id is not None else self._texts.prefixed(piece)), id

    def _encode(self, text: str, allowed: frozenset[str]) -> Iterator[tuple[int, ...]]:
        """The ids of a text, word by word."""
        for piece, id in self._pieces(text, allowed):
            if id is not None:
                yield (id,)
            else:
                yield from map(self._words.__getitem__, self._find_words(piece))

    def _check_allowed(self, allowed_special: Specials) -> frozenset[str]:
        return allowed_specials(allowed_special, self.special_tokens)

    def _check_disallowed(self, disallowed_special: Specials, allowed: frozenset[str]) -> frozenset[str]:
        return disallowed_specials(disallowed_special, self.special_tokens, allowed)

    def encode_bytes(self, data: bytes) -> list[int]:
        """`encode_ordinary` of UTF-8 bytes. Any bytes are taken, and `decode_bytes` gives them back: what is no UTF-8
        becomes its single bytes' tokens."""
        text = bytes(data).decode("utf-8", "surrogateescape")           # which makes one surrogate of each such byte
        ids: list[int] = []
        for i, part in enumerate(NOT_UTF8.split(text)):
            ids += [self._byte_ids[ord(byte) & 0xFF] for byte in part] if i % 2 else self.encode_ordinary(part)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The tokens' bytes, joined; ids: integers, a list, an array or a tensor of one axis. Raises ValueError for
        others, and naming an id that does not exist."""
        if self._fast and isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and ids.dtype != np.uint64:
            if ids.ndim != 1:
                raise ValueError(f"ids must be integers, in one row: got shape {ids.shape}")
            return self._fast.decode(ids)
        try:
            return b"".join(map(self._tokens.__getitem__, integers(ids)))
        except KeyError as error:
            raise ValueError(f"id {error.args[0]} is not in the vocabulary of {self.vocab_size}") from None

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text piece by piece as ids come in; a piece never ends inside a character, and none is empty."""
        return text_pieces(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, np.ndarray]:
        """The text of the ids, and where each token lies in it, as `encode_with_offsets` says it: (n, 2) int64."""
        return text_with_offsets(map(self.token_bytes, integers(ids)))

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token."""
        return self.decode_bytes([id])

    def __reduce__(self) -> tuple:
        """For pickle, copy and process pools: the parts. C++ is found anew where it is loaded, if it is built there."""
        return type(self), (*self._parts(), "auto" if self._fast else "python", self.rules), said(self)

    def save(self, directory: AnyPath) -> None:
        """Write directory/tokenizer.json (atomically), which `tokenizers` and `transformers` read."""
        formats.write_tokenizer_json(directory, *self._parts(), self.rules)

    def save_vocab_merges(self, directory: AnyPath) -> None:
        """Write GPT-2's pair of files, directory/vocab.json and directory/merges.txt."""
        formats.write_vocab_merges(directory, *self._parts()[:2], self._added_ids())

    def save_tiktoken(self, path: AnyPath) -> None:
        """Write tiktoken's rank file: a line per ordinary token, base64 and id; no special tokens and no pattern.

        Raises ValueError if the ids do not give the order of the merges, which is all that tiktoken looks at.
        """
        formats.write_tiktoken(path, *self._parts()[:2], self._added_ids())

    def with_special_tokens(self, special_tokens: Iterable[str]) -> "Tokenizer":
        """A tokenizer that knows these, too: those it lacks get the next free ids. All other ids stay."""
        tokens, merges, known, pattern = self._parts()
        known_others = {t.text: t.id for t in self.rules.added if t.text in special_tokens}
        new = [text for text in check_specials(special_tokens) if text not in known and text not in known_others]
        known = known | known_others | {text: len(tokens) + i for i, text in enumerate(new)}
        rules = self.rules._replace(added=tuple(t._replace(special=t.special or t.text in known_others)
                                                for t in self.rules.added))
        larger = Tokenizer(tokens + [text.encode("utf-8") for text in new], merges, known, pattern, self.backend, rules)
        vars(larger).update(said(self) | ({"eot_token": larger.eot_token} if larger.eot_token is not None else {}))
        return larger

    def _added_ids(self) -> dict[str, int]:
        return {token.text: token.id for token in self._texts.added}

    def _parts(self) -> tuple[list[bytes | None], list[tuple[bytes, bytes]], dict[str, int], str]:
        return [self._tokens.get(i) for i in range(self.vocab_size)], self.merges, self.special_tokens, self.pattern

    @classmethod
    def from_pretrained(cls, directory_or_file: AnyPath, backend: str = "auto") -> "Tokenizer":
        """Read a tokenizer's file, or that of a directory: files.py lists them. Where its vocabulary is of characters,
        as Llama 2's is, what comes back is a SentencePiece, which answers to the same calls.

        What a directory says of it besides comes along: the roles of special tokens, and the chat template.
        Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
        """
        tokenizer, directory = cls._from_files(directory_or_file, backend), Path(directory_or_file)
        if directory.is_dir():
            tokenizer.roles |= read_roles(directory)
            tokenizer.template = read_templates(directory, tokenizer.roles)
            tokenizer.eot_token = document_end(tokenizer, tokenizer.eot_token)
        return tokenizer

    @classmethod
    def _from_files(cls, directory_or_file: AnyPath, backend: str) -> "Tokenizer":
        path = tokenizer_file(Path(directory_or_file))
        if holds_ranks(path):
            pattern, specials, behind = encoding_of(path)
            return cls.from_tiktoken(path, specials, pattern, backend, behind)
        with formats.errors_name(written_name(path)):
            document = read_document(path)
            if is_sentencepiece(document):
                return SentencePiece(document, backend)     # type: ignore[return-value]
            tokens, merges, specials, pattern, rules = formats.read_tokenizer_json(document)
            return cls(tokens, merges, specials, pattern, backend, rules)

    @classmethod
    def from_vocab_merges(cls, vocab_json: AnyPath, merges_txt: AnyPath,
                          special_tokens: Iterable[str] = ("<|endoftext|>",), pattern: str = "gpt2",
                          backend: str = "auto") -> "Tokenizer":
        """Read GPT-2's pair of files. A special token that the vocabulary lacks gets the next free id."""
        specials = check_specials(special_tokens)
        with formats.errors_name(merges_txt):
            merges = formats.read_merges(merges_txt)
        with formats.errors_name(vocab_json):
            tokens, special_ids = formats.read_vocab(vocab_json, specials)
        with formats.errors_name(f"{vocab_json} and {merges_txt}"):
            return cls(tokens, merges, special_ids, pattern, backend)

    @classmethod
    def from_tiktoken(cls, path: AnyPath, special_tokens: dict[str, int] | None = None, pattern: str = "cl100k",
                      backend: str = "auto", behind: Iterable[str] = ()) -> "Tokenizer":
        """Read tiktoken's rank file, which has neither pattern nor special tokens: give those of the encoding; `behind`
        are further special tokens, whose ids follow the ranks.

        Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
        """
        with formats.errors_name(path):
            tokens, merges = formats.read_tiktoken(path)
            specials = dict(special_tokens or {}) | {text: 1 + max(tokens) + i for i, text in enumerate(behind)}
            check_specials(specials)
            unmade = len(merges) < sum(len(token) > 1 for token in tokens.values())
            return cls(formats.with_specials(tokens, specials), merges, specials, pattern, backend,
                       Rules(ignore_merges=unmade, before=tuple(specials[text] for text in behind if text == BEGIN)))


def learn(files_or_texts: Corpus, pattern: str, specials: frozenset[str], n_merges: int, progress: Callable | None,
          ties: str, backend: str, threads: int | None) -> list[tuple[int, int]]:
    """The merges as pairs of ids, by C++ or Python. Raises ValueError if merges are wanted and there is no text."""
    if core := fast.load_extension(backend):
        learned = fast.learn(core, files_or_texts, pattern, specials, n_merges, progress, ties, threads)
    else:
        counts = train.count_words(files_or_texts, pattern, specials)
        learned = train.learn_merges(counts, n_merges, progress, ties) if counts else None
    if learned is None and n_merges:
        raise ValueError("files_or_texts holds no text to learn from")
    return learned or []
