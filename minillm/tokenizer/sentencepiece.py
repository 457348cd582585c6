"""SentencePiece's kind of BPE: merges of characters, and bytes for a character that the vocabulary lacks.

Llama 2, Mistral, TinyLlama and Gemma have such vocabularies. A space is written "▁" (U+2581), and mostly one is put in
front of a text, so that a word has one token wherever it stands: "Hello world" is "▁Hello", "▁world". There are no
words in advance: merges may join anything, and the whole text is one piece. A character that is no token becomes the
tokens <0x00> to <0xFF> of its UTF-8 bytes, if the vocabulary has byte fallback, else the unknown token, several of them
in a row one if they are fused (Kudo and Richardson 2018).

Decoding restores the spaces and the bytes, and leaves out the one that was put in front. Ids and texts are those of
Hugging Face's `tokenizers` for the same tokenizer.json. What is here in Python is the specification of
csrc/text/characters.h, which encodes where it is built; both give identical ids.
"""
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from ..storage.atomic import AnyPath
from . import fast, formats
from .added import Finder, both_stages, cut_out
from .checks import Specials, allowed_specials, check_specials, check_text, disallowed_specials, integers
from .merge import merge_long
from .pretokenize import well_formed
from .roles import opened, said
from .sentencepiece_files import BLANK, read_rules
from .stream import text_pieces, text_with_offsets

BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
ENDS = ("<|endoftext|>", "</s>", "<eos>")       # what the end of a document is called
EACH_BLANK = re.compile(f"(?={BLANK})")
Piece = tuple[str, int | None, int]             # a piece as it is merged, or with the id of an added token; its place
Symbol = tuple[int, int, int]                   # a token's id, and where it begins and ends in its piece


class SentencePiece:
    """A vocabulary of characters and their merges; it answers to the same calls as `Tokenizer`.

    merges     list of (str, str), in order of rank           pattern    its rules beside the vocabulary, as text
    vocab_size, special_tokens, eot_token, ends, backend: as `Tokenizer` has them
    before, after    ids that the vocabulary's files put around a text: mostly <s> before it
    """

    def __init__(self, document: dict, backend: str = "auto"):
        """document: a tokenizer.json as `json` reads it. Raises ValueError for what is not known here, or contradicts
        itself."""
        self.document, model = document, document["model"]
        self.rules = read_rules(document)
        self.added = formats.read_added(document.get("added_tokens") or [])
        self.special_tokens = {token.text: token.id for token in self.added if token.special}
        ends = [end for end in ENDS if end in self.special_tokens]
        self.roles = {"eos_token": ends[0]} if ends else {}
        self.eot_token = self.special_tokens.get(self.roles.get("eos_token", ""))
        self.ends: frozenset[int] = frozenset()         # the ids that end a text, if the files of a model say so
        self.template: Any = None                       # a directory's own chat template (jinja_template.Templates)
        self.pattern = json.dumps([self.rules, self.added])
        self._specials = frozenset(self.special_tokens)
        self._vocab: dict[str, int] = formats.expect(model.get("vocab"), dict, "model.vocab")
        self._read_merges(model)
        self._read_tokens()
        self._early = tuple(token for token in self.added if not token.normalized)
        self._late = tuple(token._replace(text=self._normalize(token.text), normalized=False)
                           for token in self.added if token.normalized)
        self.before, self.after = list(self.rules.before), list(self.rules.after)
        if unknown := [id for id in (*self.before, *self.after) if id not in self._tokens]:
            raise ValueError(f"post_processor has id {unknown[0]}, which no token has")
        if self.before:
            self.roles["bos_token"] = self._texts[self.before[0]] or ""
        self._core, self._state = self._encoder(backend)
        self.backend = "cpp" if self._core else "python"
        self._direct = self._core is not None and self._found_as_they_stand()
        self._places: dict[frozenset[str], Any] = {}
        self._finders: dict[frozenset[str], Finder] = {}

    def _read_merges(self, model: dict) -> None:
        """Ranks, and what becomes of a character that is no token."""
        vocab = self._vocab
        self.merges = [two_parts(merge) for merge in formats.expect(model.get("merges"), list, "model.merges")]
        unknown = model.get("unk_token")
        if unknown is not None and unknown not in vocab:
            raise ValueError(f"model.unk_token {unknown!r} is not in the vocabulary")
        self._unknown: int | None = vocab[unknown] if unknown is not None else None
        self._fuse, self._whole = bool(model.get("fuse_unk")), bool(model.get("ignore_merges"))
        self._byte_ids = {byte: vocab[text] for text, byte in BYTES.items()
                          if text in vocab and model.get("byte_fallback")}
        apart = {self._unknown, *self._byte_ids.values()}       # which stand for text that is not their own
        self._ranks, self._made = dict[tuple[int, int], int](), list[int]()
        for rank, (left, right) in enumerate(self.merges):
            ids = [vocab.get(text, -1) for text in (left, right, left + right)]
            if -1 in ids or apart & {*ids}:
                raise ValueError(f"merge {rank} of {left!r:.80} and {right!r:.80}: all three must be tokens of text")
            self._ranks[ids[0], ids[1]] = rank
            self._made.append(ids[2])

    def _read_tokens(self) -> None:
        """The texts and bytes of tokens by id."""
        ids = dict(self._vocab)
        for token in self.added:
            if ids.setdefault(token.text, token.id) != token.id:
                raise ValueError(f"added token {token.text!r} has id {token.id} but {ids[token.text]} in model.vocab")
        texts: list[str | None] = [None] * size_of(ids)
        for text, id in ids.items():
            if texts[id] is not None or not text:
                raise ValueError(f"id {id} is of two tokens, or of an empty one: {texts[id]!r:.80}, {text!r:.80}")
            texts[id] = text
        self.vocab_size, self._texts = len(texts), texts
        written = {token.id: self._normalize(token.text) for token in self.added if token.normalized}
        self._tokens = {id: self._bytes_of(written.get(id, text)) for id, text in enumerate(texts) if text is not None}

    def _bytes_of(self, text: str) -> bytes:
        if self.rules.bytes_back and text in BYTES:
            return bytes([BYTES[text]])
        return text.replace(BLANK, " ").encode("utf-8")

    def _found_as_they_stand(self) -> bool:
        """Whether C++ looks for added tokens, too: where no blank is put in front, as at Gemma, which has many."""
        in_front = self.rules.prepend or self.rules.metaspace in ("always", "first")
        return not in_front and all(token.plain for token in self.added) and not all(t.special for t in self.added)

    # ---- encoding

    def encode(self, text: str, allowed_special: Specials = (), disallowed_special: Specials = "all") -> list[int]:
        """Token ids of a text, without those that its files put around it (`with_template` does). Special tokens
        are treated as `Tokenizer.encode` does; added tokens that are not special count wherever they stand."""
        return self._list_of(self.encode_array(text, allowed_special, disallowed_special))

    def _list_of(self, ids: np.ndarray) -> list[int]:
        return fast.id_list(self._core, ids, self.vocab_size)

    def encode_ordinary(self, text: str) -> list[int]:
        """`encode` that knows no special tokens: their text is ordinary text."""
        return self.encode(text, disallowed_special=())

    def encode_continuation(self, text: str) -> list[int]:
        """`encode_ordinary` of a text that goes on with another: no blank is put in front."""
        check_text(text, frozenset())
        return self._joined(list(self._pieces(well_formed(text), frozenset(), in_front=False)), 1)[0].tolist()

    def encode_array(self, text: str, allowed_special: Specials = (),
                     disallowed_special: Specials = "all") -> np.ndarray:
        """`encode` into a (n,) array: uint16 if every id fits, else uint32."""
        allowed = allowed_specials(allowed_special, self._specials)
        check_text(text, disallowed_specials(disallowed_special, self._specials, allowed))
        if self._direct:
            return self._core.encode(self._state, well_formed(text), self._wanted(allowed))
        pieces = list(self._pieces(well_formed(text), allowed))
        if self._core and len(pieces) == 1 and pieces[0][1] is None:            # mostly: no added token in it
            return self._core.encode(self._state, pieces[0][0], None)
        return self._joined(pieces, 1)[0]

    def encode_batch(self, texts: Iterable[str], allowed_special: Specials = (), disallowed_special: Specials = "all",
                     threads: int | None = None) -> list[list[int]]:
        """`encode` of each text, on `threads` threads (default: one a core; C++ only)."""
        ids, ends = self.encode_batch_array(texts, allowed_special, disallowed_special, threads)
        return [self._list_of(ids[start:end]) for start, end in pairwise(ends)]

    def encode_batch_array(self, texts: Iterable[str], allowed_special: Specials = (),
                           disallowed_special: Specials = "all", threads: int | None = None
                           ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of n texts one after the other, and (n + 1,) int64: text i has ids[ends[i]:ends[i + 1]]."""
        allowed = allowed_specials(allowed_special, self._specials)
        disallowed = disallowed_specials(disallowed_special, self._specials, allowed)
        texts, threads, pieces, counts = list(texts), fast.count_threads(threads), list[Piece](), [0]
        if self._direct:
            for text in texts:
                check_text(text, disallowed)
            return self._core.encode_batch(self._state, list(map(well_formed, texts)), self._wanted(allowed), threads)
        for text in texts:
            check_text(text, disallowed)
            pieces += self._pieces(well_formed(text), allowed)
            counts.append(len(pieces))
        ids, ends = self._joined(pieces, threads)
        return ids, ends[counts]

    def _wanted(self, allowed: frozenset[str]) -> Any:
        """The added tokens that C++ is to look for; the special ones that are not allowed as text."""
        known = self._places                            # another thread may ask for others
        if allowed not in known:
            places = [i + (token.special and token.text not in allowed) * len(self._early)
                      for i, token in enumerate(self._early)]
            self._places = known = {allowed: self._core.wanted(self._state, places)}
        return known[allowed]

    def _joined(self, pieces: list[Piece], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of n pieces, one after the other, and the (n + 1,) places where each piece's begin and end."""
        ids, ends = self._encode_pieces([piece for piece, id, _ in pieces if id is None], threads)
        is_text = np.array([id is None for _, id, _ in pieces], bool)
        texts_before = np.concatenate([[0], np.cumsum(is_text)])                # of each piece
        added = [id for _, id, _ in pieces if id is not None]
        if added:
            ids = np.insert(ids, ends[texts_before[:-1][~is_text]], added)
        return ids, ends[texts_before] + np.arange(len(pieces) + 1) - texts_before

    def encode_iterable(self, lines: Iterable[str], allowed_special: Specials = (),
                        disallowed_special: Specials = "all") -> Iterator[int]:
        """The ids of "".join(lines), one at a time. A text is one piece here, so it is held whole."""
        yield from self.encode("".join(lines), allowed_special, disallowed_special)

    def encode_with_offsets(self, text: str, allowed_special: Specials = (),
                            disallowed_special: Specials = "all") -> tuple[list[int], np.ndarray]:
        """Ids, and where each token lies in the text: (n, 2) int64, so text[start:end] is what the token stands for.

        Positions count characters. The bytes of a character have its place; a blank that was put in front has that of
        the first character.
        """
        allowed = allowed_specials(allowed_special, self._specials)
        check_text(text, disallowed_specials(disallowed_special, self._specials, allowed))
        ids, spans = list[int](), list[tuple[int, int]]()
        text = well_formed(text)
        for piece, id, place in self._pieces(text, allowed, blanks=True):
            if id is not None:
                ids.append(id)
                spans.append((place, place + len(piece)))
                continue
            least = max(place, 0) if not spans else spans[-1][1]
            for word in self._words(piece):
                for id, start, end in self._spans(word, place):
                    ids.append(id)
                    spans.append((max(start, least), max(end, least + 1)))
                place += len(word)
        return ids, np.array(spans, np.int64).reshape(-1, 2)

    def _pieces(self, text: str, allowed: frozenset[str], blanks: bool = False,
                in_front: bool = True) -> Iterator[Piece]:
        """The text cut at added tokens, as it is merged; spaces need not be written as blanks for C++."""
        blanks = blanks or not self._core or bool(self._late)
        allowed_late = frozenset(map(self._normalize, allowed)) if self._late else allowed
        start = 0
        for part, id in self._finder(allowed).pieces(text):
            if id is not None:
                yield part, id, start
            else:
                normal = self._normalize(part, blanks)[not in_front and self.rules.prepend:]
                place = start - (len(normal) - len(part))
                for piece, late_id in cut_out(normal, self._late, allowed_late) if self._late else [(normal, None)]:
                    if late_id is None and in_front and (first := self._first(piece, place)):
                        yield self._blank(first + piece, blanks), None, place - 1
                    else:
                        yield piece if late_id is not None else self._blank(piece, blanks), late_id, place
                    place += len(piece)
            start += len(part)

    def _finder(self, allowed: frozenset[str]) -> Finder:
        """Of the added tokens in a text as it came; kept, since hundreds of them take long to look up."""
        if allowed not in self._finders:
            self._finders = {allowed: both_stages(self._early, allowed, None)[0]}
        return self._finders[allowed]

    def _normalize(self, text: str, blanks: bool = True) -> str:
        """What the normalizer makes of a text, or of what stands between added tokens."""
        text = text.replace(" ", BLANK) if self.rules.normalizer and blanks else text
        return BLANK * self.rules.prepend + text if text else text

    def _blank(self, text: str, blanks: bool) -> str:
        return text.replace(" ", BLANK) if self.rules.metaspace and blanks else text

    def _first(self, piece: str, place: int) -> str:
        """The blank that Metaspace puts in front of a piece, or nothing."""
        wanted = self.rules.metaspace == "always" or self.rules.metaspace == "first" and place <= 0
        return BLANK if wanted and piece[0] not in (" ", BLANK) else ""

    def _words(self, piece: str) -> list[str]:
        """The parts of a piece that merging does not go beyond."""
        return [word for word in EACH_BLANK.split(piece) if word] if self.rules.split else [piece]

    def _encode_pieces(self, pieces: list[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all pieces, and the (n + 1,) places where each piece's begin and end."""
        if self._core:
            return self._core.encode_batch(self._state, pieces, None, threads)
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        arrays = [np.fromiter(chain.from_iterable(map(self._merge, self._words(piece))), dtype) for piece in pieces]
        return np.concatenate([np.empty(0, dtype), *arrays]), np.cumsum([0, *map(len, arrays)], dtype=np.int64)

    def _merge(self, word: str) -> list[int]:
        """The ids of a word: the definition."""
        if self._whole and word in self._vocab:
            return [self._vocab[word]]
        return merge_long([id for id, _, _ in self._symbols(word)], self._ranks, self._made)

    def _symbols(self, word: str) -> list[Symbol]:
        """A word's characters before any merge. An unknown one is written when the next known one comes."""
        symbols, pending = list[Symbol](), list[Symbol]()
        for i, char in enumerate(word):
            data = char.encode("utf-8")
            if (id := self._vocab.get(char)) is not None:
                symbols += [*pending, (id, i, i + 1)]
                pending = []
            elif all(byte in self._byte_ids for byte in data):
                symbols += [(self._byte_ids[byte], i, i + 1) for byte in data]
            elif self._unknown is not None and pending and self._fuse:
                pending = [(self._unknown, pending[0][1], i + 1)]
            elif self._unknown is not None:
                symbols += pending
                pending = [(self._unknown, i, i + 1)]
        return symbols + pending

    def _spans(self, word: str, start: int) -> Iterator[Symbol]:
        """The tokens of a word that begins at `start`: a merged one is of as many symbols as it has characters."""
        symbols, i = self._symbols(word), 0
        apart = {self._unknown, *self._byte_ids.values()}
        for id in self._merge(word):
            count = 1 if id in apart else len(self._texts[id] or "")
            yield id, start + symbols[i][1], start + symbols[i + count - 1][2]
            i += count

    def _encoder(self, backend: str) -> Any:
        """(the core, its encoder of this vocabulary), or two None where Python has to do it."""
        core, fits = fast.load_extension(backend), not self._whole
        fits = fits and not (self.rules.blanks and BLANK not in self._vocab)
        if core is None or not fits or max(self.vocab_size, len(self.merges)) > core.MAX_TOKENS:
            return None, None
        none = 2 ** 32 - 1
        chars = {ord(text): id for text, id in self._vocab.items() if len(text) == 1}
        triples = [(left, right, self._made[rank]) for (left, right), rank in
                   sorted(self._ranks.items(), key=itemgetter(1))]
        joined = [text for text in {self._texts[id] for id in self._made} if text]
        return core, core.character_encoder(
            np.array(list(chars), np.uint32), np.array(list(chars.values()), np.uint32),
            np.array([self._byte_ids.get(byte, none) for byte in range(256)], np.uint32),
            none if self._unknown is None else self._unknown, self._fuse, self.rules.blanks, self.rules.split, joined,
            *map(np.ascontiguousarray, np.array(triples, np.uint32).reshape(-1, 3).T),
            [self._tokens.get(id) for id in range(self.vocab_size)],
            [(token.text.encode("utf-8"), id, False) for known in (True, False) for token in self._early
             for id in [token.id if known else core.NOT_TAKEN]])

    def with_template(self, ids: Sequence[int]) -> list[int]:
        """The ids with what the tokenizer's files put around every text, but for a beginning that is there already."""
        return [*opened(self, list(ids)), *self.after]

    # ---- decoding

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, with the blank that it begins with."""
        try:
            return self._tokens[id]
        except KeyError:
            raise ValueError(f"id {id} is not in the vocabulary of {self.vocab_size}") from None

    def _bytes_in_text(self, ids: Iterable[int], strip: int) -> Iterator[bytes]:
        """The tokens' bytes as they stand in a text: of the blanks that it begins with `strip` are left out."""
        for i, id in enumerate(ids):
            token = self.token_bytes(id)
            if i == 0 and self.rules.first_bare and self._texts[id] not in BYTES:
                token = token.replace(b" ", b"")
            if strip:
                bare = min(strip, len(token) - len(token.lstrip(b" ")))
                strip = strip - bare if bare == len(token) else 0
                token = token[bare:]
            yield token

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The tokens' bytes, joined, without the blank that was put in front of the text. Raises ValueError for what
        are no integers in one row, and naming an id that does not exist."""
        return b"".join(self._bytes_in_text(integers(ids), self.rules.strip))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids. Of bytes in a row that are no UTF-8 each becomes U+FFFD, as at Hugging Face."""
        ids = integers(ids)
        try:
            return self.decode_bytes(ids).decode("utf-8")
        except UnicodeDecodeError:
            runs = groupby(zip(ids, self._bytes_in_text(ids, 0)), lambda pair: self._texts[pair[0]] in BYTES)
            text = "".join(decode_run(b"".join(map(itemgetter(1), run))) for _, run in runs)
            return text[min(self.rules.strip, len(text) - len(text.lstrip(" "))):]

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text piece by piece as ids come in; a piece never ends inside a character, and none is empty."""
        return text_pieces(self._bytes_in_text(ids, self.rules.strip))

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, np.ndarray]:
        """The text of the ids, and where each token lies in it, as `encode_with_offsets` says it: (n, 2) int64."""
        return text_with_offsets(self._bytes_in_text(integers(ids), self.rules.strip))

    # ---- files

    def __reduce__(self) -> tuple:
        """For pickle, copy and process pools: what its file says."""
        return type(self), (self.document, "auto" if self._core else "python"), said(self)

    def save(self, directory: AnyPath) -> None:
        """Write directory/tokenizer.json (atomically), which `tokenizers` and `transformers` read."""
        formats.write_document(directory, self.document)

    def with_special_tokens(self, special_tokens: Iterable[str]) -> "SentencePiece":
        """A tokenizer that knows these, too: those it lacks get the next free ids. All other ids stay."""
        new = [text for text in check_specials(special_tokens) if text not in self.special_tokens]
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [*self.document.get("added_tokens", []),
                 *({"id": self._vocab.get(text, self.vocab_size + i), "content": text, **plain, "special": True}
                   for i, text in enumerate(new))]
        larger = SentencePiece(self.document | {"added_tokens": added}, self.backend)
        vars(larger).update(said(self) | ({"eot_token": larger.eot_token} if larger.eot_token is not None else {}))
        return larger


def size_of(ids: dict[str, int]) -> int:
    """One more than the largest id. Raises ValueError for ids that are no integers, or leave out too many."""
    for text, id in ids.items():
        if formats.expect(id, int, f"id of token {text!r:.80}") < 0:
            raise ValueError(f"token {text!r:.80} has id {id}")
    size = 1 + max(ids.values(), default=-1)
    if size > len(ids) + formats.MOST_IDS_LEFT_OUT:
        raise ValueError(f"the largest id is {size - 1}, but there are only {len(ids)} tokens")
    return size


def two_parts(merge: Any) -> tuple[str, str]:
    """'▁t he' or ['▁t', 'he'] -> ('▁t', 'he')."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ValueError(f"a merge must be two tokens: got {merge!r:.80}")
    return parts[0], parts[1]


def decode_run(data: bytes) -> str:
    """Bytes in a row as text, or as so many U+FFFD."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(data)
