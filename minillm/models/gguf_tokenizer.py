"""The tokenizer inside a GGUF file: tokens, their kinds, and merges or scores.

Byte-level BPE is tokenizer.ggml.model "gpt2": tokens in GPT-2's byte alphabet, special ones as they are, and merges.
llama.cpp has its patterns by name (tokenizer.ggml.pre) in its own source: a pattern that it lacks cannot be exported.
SentencePiece's BPE is "llama": of all merges that are possible the one whose token has the best score comes first, so
a token's score is the rank of the first merge that makes it, negated.
"""
from collections.abc import Callable
from typing import Any

from ..tokenizer import Tokenizer
from ..tokenizer.added import AddedToken
from ..tokenizer.chat_template import learned_ends
from ..tokenizer.formats import bytes_to_chars, merge_lines, parse_merge, tokens_by_id
from ..tokenizer.jinja_template import Templates
from ..tokenizer.roles import document_start
from ..tokenizer.rules import Rules
from ..tokenizer.sentencepiece import BYTES, SentencePiece
from ..tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    document_of,
)

PATTERNS = {"gpt2": "gpt-2", "cl100k": "smaug-bpe", "o200k": "gpt-4o", "llama3": "llama-bpe", "qwen2": "qwen2",
            "smollm": "smollm", "deepseek": "deepseek-v3"}              # ours -> llama.cpp's
OURS = {theirs: ours for ours, theirs in PATTERNS.items()} | {
    "phi-2": "gpt2", "mpt": "gpt2", "olmo": "gpt2", "default": "gpt2", "dbrx": "cl100k", "deepseek-r1-qwen": "qwen2"}
WHOLE_WORDS = ("llama-bpe",)        # patterns with which llama.cpp takes a word that is a token whole


def write_vocabulary(writer: Any, tokenizer: Any, vocab_size: int, chat_template: str | None = None) -> None:
    """Add the keys of a tokenizer; ids up to vocab_size that it lacks are marked as unused.

    Raises ValueError for what llama.cpp does not have: a pattern, a normalizer, a prefix space, bytes without merges.
    """
    write = write_sentencepiece if isinstance(tokenizer, SentencePiece) else write_byte_level
    write(writer, tokenizer, vocab_size)
    before, after = tokenizer.before, tokenizer.after
    if len(before) > 1 or len(after) > 1:
        raise ValueError("a template of several tokens around a text cannot be exported: expected at most one each")
    start, ends = document_start(tokenizer), [*after, *learned_ends(tokenizer).eos]
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    for begin in [*before, start][:1]:
        if begin is not None:
            writer.add_bos_token_id(int(begin))
    if ends:
        writer.add_eos_token_id(int(ends[0]))
    for end in [end for end in ends if end != ends[0]][:1]:
        writer.add_eot_token_id(int(end))
    if chat_template:
        writer.add_chat_template(chat_template)


def write_byte_level(writer: Any, tokenizer: Tokenizer, vocab_size: int) -> None:
    if not len(tokenizer.merges):
        raise ValueError("a byte-level tokenizer without merges is none that llama.cpp loads: expected at least one")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_of(tokenizer))
    plain = {token.text: token.id for token in tokenizer.rules.added if not token.special}
    names = {id: text for text, id in {**tokenizer.special_tokens, **plain}.items()}
    tokens, kinds = [], []
    for id in range(vocab_size):
        token = bytes_of(tokenizer, id)
        named = USER_DEFINED if names.get(id) in plain else CONTROL
        kind = UNUSED if token is None else named if id in names else NORMAL
        tokens.append(f"[PAD{id}]" if token is None else names.get(id) or bytes_to_chars(token))
        kinds.append(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merge_lines(tokenizer.merges))


def pre_of(tokenizer: Tokenizer) -> str:
    """llama.cpp's name of all that is done to a text before merging. Raises ValueError where it has none."""
    rules, name = tokenizer.rules, PATTERNS.get(tokenizer.pattern)
    if name == "llama-bpe" and not rules.ignore_merges:
        name = "smaug-bpe"                              # the same pattern, without whole words
    if name is None:
        raise ValueError(f"the tokenizer's pattern {tokenizer.pattern!r:.80} is none that llama.cpp has: expected one "
                         f"of {', '.join(PATTERNS)}")
    if rules.ignore_merges != (name in WHOLE_WORDS):
        raise ValueError(f"ignore_merges with the pattern {tokenizer.pattern} is nothing that llama.cpp has")
    if rules.prefix_space or (rules.normalizer and tokenizer.pattern != "qwen2"):
        raise ValueError("a tokenizer with a normalizer or a prefix space cannot be exported")
    return name


def write_sentencepiece(writer: Any, tokenizer: SentencePiece, vocab_size: int) -> None:
    """llama.cpp puts a blank in front of every text; Metaspace, unless there is one: so a text that begins with a space
    gets one blank more there. Raises ValueError without bytes for characters that are no tokens."""
    if not tokenizer.document["model"].get("byte_fallback"):
        raise ValueError("a SentencePiece tokenizer without byte fallback is nothing that llama.cpp has")
    ranks = {left + right: rank for rank, (left, right) in reversed(list(enumerate(tokenizer.merges)))}
    added = {token.id: token for token in tokenizer.added}
    tokens, scores, kinds = [], [], []
    for id in range(vocab_size):
        text = tokenizer._texts[id] if id < tokenizer.vocab_size else None
        tokens.append(f"[PAD{id}]" if text is None else text)
        scores.append(-float(ranks.get(text or "", len(ranks))))
        kinds.append(kind_of(id, text, added, tokenizer))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    rules = tokenizer.rules
    writer.add_add_space_prefix(rules.prepend or rules.metaspace in ("always", "first"))


def kind_of(id: int, text: str | None, added: dict[int, AddedToken], tokenizer: SentencePiece) -> int:
    if text is None:
        return UNUSED
    if text in BYTES:
        return BYTE
    if text == tokenizer.document["model"].get("unk_token"):
        return UNKNOWN
    return NORMAL if id not in added else CONTROL if added[id].special else USER_DEFINED


def bytes_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    """The bytes of a token; None if the id stands for nothing."""
    try:
        return tokenizer.token_bytes(id)
    except ValueError:
        return None


def read_vocabulary(value: Callable) -> Any:
    """The tokenizer that the metadata describes; value(key): of a key of the file, or None.

    Raises ValueError for another kind of tokenizer than BPE of bytes or of SentencePiece, or a pattern not known here.
    """
    kind = value("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ValueError(f"tokenizer.ggml.model = {kind!r} is not supported: expected gpt2, byte-level BPE, or llama, "
                         "SentencePiece's BPE")
    tokenizer = (read_byte_level if kind == "gpt2" else read_sentencepiece)(value)
    ends = {value(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")} - {None}
    tokenizer.ends = frozenset(int(end) for end in ends)
    texts = value("tokenizer.ggml.tokens") or []
    marks = {f"{name}_token": value(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    tokenizer.roles = {role: texts[int(id)] for role, id in marks.items() if id is not None and int(id) < len(texts)}
    if template := value("tokenizer.chat_template"):
        tokenizer.template = Templates({"default": str(template)}, tokenizer.roles)
    return tokenizer


def read_byte_level(value: Callable) -> Tokenizer:
    pre = value("tokenizer.ggml.pre") or "default"
    if pre not in OURS:
        raise ValueError(f"tokenizer.ggml.pre = {pre!r} is not supported: expected one of {', '.join(OURS)}")
    texts = value("tokenizer.ggml.tokens") or []
    kinds = value("tokenizer.ggml.token_type") or [NORMAL] * len(texts)
    ids = {text: id for id, (text, kind) in enumerate(zip(texts, kinds)) if kind != UNUSED}
    specials = {text: id for text, id in ids.items() if kinds[id] == CONTROL}
    plain = tuple(AddedToken(text, id, special=False) for text, id in ids.items() if kinds[id] == USER_DEFINED)
    merges = [parse_merge(merge) for merge in value("tokenizer.ggml.merges") or []]
    begin, end = ((int(value(f"tokenizer.ggml.{name}_token_id")),) if value(f"tokenizer.ggml.add_{name}_token") else ()
                  for name in ("bos", "eos"))
    rules = Rules(plain, ignore_merges=pre in WHOLE_WORDS, before=begin, after=end)
    return Tokenizer(tokens_by_id(ids, {*specials, *(token.text for token in plain)}), merges, specials, OURS[pre],
                     rules=rules)


def read_sentencepiece(value: Callable) -> SentencePiece:
    texts, scores = value("tokenizer.ggml.tokens") or [], value("tokenizer.ggml.scores") or []
    kinds = value("tokenizer.ggml.token_type") or [NORMAL] * len(texts)
    if not len(texts) == len(scores) == len(kinds):
        raise ValueError("tokenizer.ggml.tokens, scores and token_type must be of one length: got "
                         f"{len(texts)}, {len(scores)}, {len(kinds)}")
    used = max((id + 1 for id, kind in enumerate(kinds) if kind != UNUSED), default=0)
    in_front = value("tokenizer.ggml.add_space_prefix")
    normalizer = {2: b"", 3: int(in_front is None or in_front), 4: 0}
    document = document_of(Vocabulary(texts[:used], scores[:used], kinds[:used], {3: 2}, normalizer))
    if value("tokenizer.ggml.add_bos_token") is False:
        document["post_processor"] = None
    return SentencePiece(document)
