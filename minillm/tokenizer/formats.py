"""Tokenizer file formats: Hugging Face's tokenizer.json, GPT-2's vocab.json with merges.txt, tiktoken's rank file.

tiktoken's lines are a token's bytes in base64 and its id. The others are text, so they write each byte as one printable
character (Radford et al. 2019): the printable ones of Latin-1 stand for themselves, the other 68 become U+0100, U+0101,
... in order. A space is thus 'Ġ'. The order of these characters is also that of the first 256 ids, here as in GPT-2.

Readers accept what this package can reproduce exactly (byte-level BPE; split.py, normalize.py, added.py and rules.py
say with what around it) and refuse anything else with one ValueError that names the file: a tokenizer that is nearly
right gives wrong ids silently.
"""
import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

from ..storage.atomic import AnyPath, atomic_write, write_json
from ..storage.safetensors import parse_json_object
from .added import AddedToken
from .merge import merge_long, merge_short
from .normalize import normalizer_of
from .pretokenize import PATTERNS, STEPS, pattern_steps, word_finder
from .rules import NO_RULES, Rules, template_of
from .split import steps_of

Tokens = list[bytes | None]             # a token's bytes by id, None for an id that stands for nothing
Merges = list[tuple[bytes, bytes]]      # in order of rank
MOST_BYTES = 1 << 28        # of a file: several times the largest vocabulary there is
MOST_IDS_LEFT_OUT = 1 << 20     # ids that may stand for nothing, as some of tiktoken's do: a bound on memory

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [byte for byte in range(256) if byte not in PRINTABLE]
BYTE_TO_CHAR = {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(HIDDEN)}
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}
BYTE_ORDER = sorted(range(256), key=BYTE_TO_CHAR.__getitem__)       # '!' is id 0, '"' is id 1, ..., the space is 220

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
OPTIONS = AddedToken._fields[2:]

# Forms of one pattern: where what follows a run cannot begin inside it, it makes no difference whether it gives back.
POSSESSIVE = regex.compile(r"(?<=[+?*])\+")
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SAME = (("'(?i:[sdmt]|ll|ve|re)", CONTRACTIONS), ("(?i:'(?:[sdmt]|ll|ve|re))", CONTRACTIONS))
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
                   "chat_template.jinja", "chat_template.json", "added_tokens.json", "encoder.json", "vocab.bpe",
                   "tokenizer.model")


def bytes_to_chars(token: bytes) -> str:
    """b' the' -> 'Ġthe'."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, token))


def chars_to_bytes(text: str) -> bytes | None:
    """'Ġthe' -> b' the'; None if a character stands for no byte."""
    try:
        return bytes(map(CHAR_TO_BYTE.__getitem__, text))
    except KeyError:
        return None


# ---- writing

def write_tokenizer_json(directory: AnyPath, tokens: Tokens, merges: Merges, special_tokens: dict[str, int],
                         pattern: str, rules: Rules = NO_RULES) -> None:
    """Write directory/tokenizer.json; `tokens[id]` is bytes, merges are pairs of bytes. Creates the directory."""
    given = {token.text for token in rules.added}
    specials = [AddedToken(text, id) for text, id in special_tokens.items() if text not in given]
    tokens_added = sorted([*specials, *rules.added], key=lambda token: token.id)
    added = [{"id": token.id, "content": token.text, **{name: getattr(token, name) for name in OPTIONS}}
             for token in tokens_added]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": rules.ignore_merges,
             "vocab": vocabulary(tokens, {token.text: token.id for token in tokens_added}),
             "merges": merge_lines(merges)}
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": json.loads(rules.normalizer or "null"),
                "pre_tokenizer": pre_tokenizer(pattern, rules.prefix_space),
                "post_processor": json.loads(rules.post_processor or "null"),
                "decoder": BYTE_LEVEL | {"use_regex": True}, "model": model}
    write_document(directory, document)


def write_document(directory: AnyPath, document: dict) -> None:
    """Write directory/tokenizer.json. Creates the directory."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    write_json(Path(directory) / "tokenizer.json", document, ensure_ascii=False, indent=1)


def write_vocab_merges(directory: AnyPath, tokens: Tokens, merges: Merges, special_tokens: dict[str, int]) -> None:
    """Write directory/vocab.json and directory/merges.txt. Creates the directory."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocab.json", vocabulary(tokens, special_tokens), ensure_ascii=False)
    with atomic_write(directory / "merges.txt", newline="\n") as file:
        file.write("\n".join(["#version: 0.2", *merge_lines(merges), ""]))


def write_tiktoken(path: AnyPath, tokens: Tokens, merges: Merges, special_tokens: dict[str, int]) -> None:
    """Write tiktoken's rank file. Raises ValueError if the ids do not tell the order of the merges."""
    special_ids = set(special_tokens.values())
    ids = {token: id for id, token in enumerate(tokens) if id not in special_ids}
    made = [ids[first + second] for first, second in merges]
    if any(later <= earlier for earlier, later in pairwise(made)):
        raise ValueError("the ids are not in the order of the merges: tiktoken's rank file cannot tell this vocabulary")
    lines = [f"{base64.b64encode(token).decode()} {id}\n" for token, id in ids.items() if token is not None]
    with atomic_write(Path(path), newline="\n") as file:
        file.writelines(lines)


def vocabulary(tokens: Tokens, special_tokens: dict[str, int]) -> dict[str, int]:
    """Written form -> id; special tokens are written as they are."""
    special_text = {id: text for text, id in special_tokens.items()}
    return {special_text.get(id) or bytes_to_chars(token): id for id, token in enumerate(tokens) if token is not None}


def merge_lines(merges: Merges) -> list[str]:
    """'Ġt he': a space parts the two, since none can be inside."""
    return [f"{bytes_to_chars(first)} {bytes_to_chars(second)}" for first, second in merges]


def pre_tokenizer(pattern: str, prefix_space: bool = False) -> dict:
    """Hugging Face's description of a pattern. Its ByteLevel step has GPT-2's built in."""
    if pattern == "gpt2":
        return BYTE_LEVEL | {"add_prefix_space": prefix_space, "use_regex": True}
    steps = [step | ({"trim_offsets": True} if step["type"] == "ByteLevel" else {}) for step in pattern_steps(pattern)]
    return {"type": "Sequence", "pretokenizers": steps}


# ---- reading

@contextmanager
def errors_name(path: AnyPath) -> Iterator[None]:
    """Any ValueError inside gets the file's name in front."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: not a usable tokenizer file: {error}") from None


def read_tokenizer_json(document: dict) -> tuple[Tokens, Merges, dict[str, int], str, Rules]:
    """(tokens, merges, special_tokens, pattern, rules) of a tokenizer.json's content. Raises ValueError."""
    model = expect(document.get("model"), dict, "model")
    check_model(model)
    pattern, prefix_space = pattern_of(document.get("pre_tokenizer"))
    added = read_added([] if document.get("added_tokens") is None else document["added_tokens"])
    ids = expect(model.get("vocab"), dict, "model.vocab")
    for token in added:
        if ids.setdefault(token.text, token.id) != token.id:
            raise ValueError(f"added token {token.text!r} has id {token.id} but {ids[token.text]!r} in model.vocab")
    merges = [parse_merge(merge) for merge in expect(model.get("merges"), list, "model.merges")]
    tokens = tokens_by_id(ids, {token.text for token in added})
    rules = read_rules(document, [token for token in added if not (token.special and token.plain)], tokens)
    ignore_merges = expect(model.get("ignore_merges", False), bool, "model.ignore_merges")
    specials = {token.text: token.id for token in added if token.special}
    return tokens, merges, specials, pattern, rules._replace(prefix_space=prefix_space, ignore_merges=ignore_merges)


def read_rules(document: dict, added: list[AddedToken], tokens: Tokens) -> Rules:
    """What normalizer and post_processor say."""
    normalizer, post_processor = document.get("normalizer"), document.get("post_processor")
    before, after = template_of(post_processor)
    if unknown := [id for id in (*before, *after) if id >= len(tokens) or tokens[id] is None]:
        raise ValueError(f"post_processor has id {unknown[0]}, which no token has")
    return Rules(tuple(added), json.dumps(normalizer) if normalizer_of(normalizer) else "", before=before, after=after,
                 post_processor=json.dumps(post_processor) if post_processor else "")


def read_vocab(path: AnyPath, specials: list[str]) -> tuple[Tokens, dict[str, int]]:
    """(tokens, special_tokens) of a vocab.json; `specials` that it lacks are put at the end."""
    ids = read_json(path)
    for text in specials:
        ids.setdefault(text, len(ids))
    special_tokens = {text: ids[text] for text in specials}
    return tokens_by_id(ids, set(special_tokens)), special_tokens


def read_merges(path: AnyPath) -> Merges:
    """The pairs in a merges.txt, whose first line may give a version, and which some editors begin with a BOM."""
    lines = read_text(path).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    return [parse_merge(line) for line in lines if line]


def read_tiktoken(path: AnyPath) -> tuple[dict[int, bytes], Merges]:
    """(id -> bytes, merges) of a rank file. It names no merges: a token's two parts are what the tokens before it make
    of its bytes. (Neighbours that ever meet as x and y have become so inside x + y alone, so no other parts occur.)"""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line:
            id, token = parse_rank(line, number)
            if id in tokens:
                raise ValueError(f"line {number}: id {id} is there twice")
            tokens[id] = token
    ids = {token: id for id, token in tokens.items()}
    if len(ids) < len(tokens):
        raise ValueError("a token is there twice")
    return tokens, recover_merges(tokens, ids)


def parse_rank(line: str, number: int) -> tuple[int, bytes]:
    text, _, id = line.partition(" ")
    try:
        token = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        token = b""
    if not token or not (id.isascii() and id.isdecimal() and len(id) < 10):
        raise ValueError(f"line {number} must be base64, a space and an id: got {line!r:.80}")
    return int(id), token


def recover_merges(tokens: dict[int, bytes], ids: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Replay each token's bytes with the merges found so far. Where more than two tokens are left, no merge makes it:
    it is a token where it is a word of its own (ignore_merges), as some of Llama 3's are."""
    ranks: dict[tuple, int] = {}
    made: list[int] = []
    for byte in range(256):
        if bytes([byte]) not in ids:
            raise ValueError(f"no token for the single byte {byte:#04x}: not a byte-level vocabulary")
    for id in sorted(tokens):
        if len(tokens[id]) == 1:
            continue
        parts = [ids[bytes([byte])] for byte in tokens[id]]
        parts = (merge_short if len(parts) <= 32 else merge_long)(parts, ranks, made)
        if len(parts) == 2:
            ranks[tuple(parts)] = len(made)
            made.append(id)
    return [(tokens[first], tokens[second]) for first, second in ranks]


def with_specials(tokens: dict[int, bytes], special_tokens: dict[str, int]) -> list[bytes | None]:
    """tokens[id] as a list, special tokens included, None where an id is not used."""
    tokens = dict(tokens)
    for text, id in special_tokens.items():
        if isinstance(id, bool) or not isinstance(id, int) or id < 0 or id in tokens:
            raise ValueError(f"special token {text!r} must have an id of its own: got {id!r}")
        tokens[id] = text.encode("utf-8")
    size = max(tokens) + 1
    if size > len(tokens) + MOST_IDS_LEFT_OUT:
        raise ValueError(f"the largest id is {size - 1}, but there are only {len(tokens)} tokens")
    return [tokens.get(id) for id in range(size)]


def read_text(path: AnyPath) -> str:
    """A whole file, which must be UTF-8 and no larger than any tokenizer is."""
    path = Path(path)
    if path.is_dir():
        raise ValueError("it is a folder")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    return path.read_text(encoding="utf-8")


def read_json(path: AnyPath) -> dict:
    return parse_json_object(read_text(path).encode(), "the file")


def expect(value: Any, kind: type, name: str) -> Any:
    """The value, if it is of this kind of JSON. Raises ValueError naming it."""
    if not isinstance(value, kind) or isinstance(value, bool) and kind is int:
        raise ValueError(f"{name} must be a JSON {kind.__name__}: got {type(value).__name__}")
    return value


def check_model(model: dict) -> None:
    """Refuse the features that would change ids and that this package does not have."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"model.type must be BPE: got {model['type']!r}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"model.{name} is not supported: got {model[name]!r}")


def pattern_of(description: Any) -> tuple[str, bool]:
    """The pattern that a pre_tokenizer describes, a name or the JSON of its steps, and whether it puts a space before
    each text. (trim_offsets concerns offsets only.)"""
    steps = [compared(step) for step in steps_of(description)]
    prefix_space = len(steps) == 1 and steps[0]["use_regex"] and steps[0]["add_prefix_space"]
    if prefix_space:
        steps[0]["add_prefix_space"] = False
    names = [name for name in [*PATTERNS, *STEPS] if [compared(step) for step in pattern_steps(name)] == steps]
    if names:
        return names[0], prefix_space
    word_finder(pattern := json.dumps(steps_of(description)))        # it must be one that `regex` can read
    return pattern, False


def compared(step: dict) -> dict:
    """A step in the one form that equal ones have, if its pattern tiles every text, as those with names do."""
    if step["type"] != "Split" or "Regex" not in step["pattern"]:
        return dict(step)
    if (step["behavior"], step["invert"]) == ("Removed", True):         # what is no match is dropped: there is nothing
        step = step | {"behavior": "Isolated", "invert": False}
    pattern = POSSESSIVE.sub("", step["pattern"]["Regex"])
    for one, other in SAME:
        pattern = pattern.replace(one, other)
    return step | {"pattern": {"Regex": pattern}}


def read_added(added: Any) -> list[AddedToken]:
    """The added tokens, each with its options."""
    tokens: dict[str, AddedToken] = {}
    for item in expect(added, list, "added_tokens"):
        expect(item, dict, "each of added_tokens")
        text, id = expect(item.get("content"), str, "added token's content"), item.get("id")
        if not text or text in tokens:
            raise ValueError(f"added token {text!r} is empty or there twice")
        options = {name: expect(item.get(name, False), bool, f"{name} of added token {text!r}") for name in OPTIONS}
        tokens[text] = AddedToken(text, expect(id, int, f"id of added token {text!r}"), **options)
    return list(tokens.values())


def parse_merge(merge: Any) -> tuple[bytes, bytes]:
    """'Ġt he' or ['Ġt', 'he'] -> (b' t', b'he')."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ValueError(f"a merge must be two tokens: got {merge!r:.80}")
    first, second = map(chars_to_bytes, parts)
    if first is None or second is None:
        raise ValueError(f"merge {merge!r:.80} has a character that stands for no byte")
    return first, second


def tokens_by_id(ids: dict[str, int], special_tokens: set[str]) -> Tokens:
    """tokens[id] = bytes, None for ids that are left out. Raises ValueError unless each id comes once and few lack."""
    size = 1 + max((id for id in ids.values() if isinstance(id, int)), default=-1)
    tokens: Tokens = [None] * min(size, len(ids) + MOST_IDS_LEFT_OUT)
    for text, id in ids.items():
        if not 0 <= expect(id, int, f"id of token {text!r:.80}") < len(tokens) or tokens[id] is not None:
            raise ValueError(f"ids must be 0 to {len(ids) - 1}, each once: token {text!r:.80} has {id!r:.80}")
        tokens[id] = text.encode("utf-8") if text in special_tokens else chars_to_bytes(text)
        if not tokens[id]:
            raise ValueError(f"token {text!r:.80} is empty or has a character that stands for no byte")
    return tokens
