r"""Pre-tokenization: cutting text into words before any merging; patterns, special tokens, and safe cuts in a stream.

BPE never merges across the words ("pre-tokens") found here, so ` the` and `the.` can share tokens, and each distinct
word needs to be merged only once. A pattern is a regular expression whose matches, left to right, tile the text:

    gpt2     Radford et al. 2019: contractions, then a run of letters, of digits or of anything else, each with at
             most one space before it; then white space, which leaves its last character to the word that follows.
    cl100k   GPT-4's: contractions in any case, at most three digits together, punctuation keeps its newlines. As in
             tiktoken today, white space that ends the text is one word (older forms split it after a newline).
    o200k    GPT-4o's: as cl100k, but a capital begins a new word after a small letter, and contractions and combining
             marks stay with their word.
    llama3   Llama 3's, and that of OLMo 2, Phi-4 and GPT-4 in a tokenizer.json: cl100k, but white space that ends the
             text is split after its last newline.
    qwen2    Qwen 2's, 2.5's and 3's: llama3 with each digit a word; qwen3.5: whose marks stay with their letters.
    smollm   SmolLM's: each digit a word, and gpt2 in what is between them.
    deepseek DeepSeek V3's and R1's: at most three digits, a run of Chinese or kana, and between them words whose marks
             stay.

A tokenizer may also have the JSON of Hugging Face's pre_tokenizer for a pattern (split.py).

They are written with constructs that Python's `regex`, Rust's `fancy-regex` and Oniguruma read alike. What is a letter
is pinned to Unicode 16.0, as in tiktoken 0.14, whatever the installed `regex` knows: the ids of a text stay.
Special tokens such as <|endoftext|> are cut out first, the longest first where several begin at one place.
"""
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, pairwise

import regex

from .literals import any_of
from .pinned import pinned
from .split import cutter

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s"),
    "o200k": (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'(?:[sdmt]|ll|ve|re))?"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'(?:[sdmt]|ll|ve|re))?"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "llama3": (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "qwen3.5": (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "qwen2": (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
}

def isolated(pattern: str) -> dict:
    """A Split of a tokenizer.json that cuts out a pattern's matches."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def pattern_steps(name: str) -> list[dict]:
    """The steps of a pattern as those of Hugging Face's pre_tokenizer: its name, or their JSON."""
    if name.startswith("["):
        return json.loads(name)
    return STEPS[name] if name in STEPS else [isolated(PATTERNS[name]), BYTE_LEVEL] if name != "gpt2" else [
        BYTE_LEVEL | {"use_regex": True}]


# Where a text may be cut so that both halves, tokenized alone, give what the whole gives. In every pattern above a
# blank that is no newline never continues a word: so what is not white space ends its word before one, and the right
# half begins a word. In gpt2 and cl100k a letter or digit also ends its word unless another letter or digit follows (in
# o200k a mark or a contraction may). Elsewhere a cut may change the words: two newlines before a dash are two words,
# but one word where the text ends; "'l" + "l". (?r) searches from the end; a surrogate may be half of a letter, so
# nothing is decided before one. A pattern that is not listed is never cut. Letters are those of the old scripts: of
# others `regex` may know more than Unicode 16.0, or less.
OLD = r"\u0000-\u0377\u0400-\u052f\u3041-\u3096\u30a1-\u30fa\u3400-\u4db5\u4e00-\u9fa5\uac00-\ud7a3"
AFTER_LETTER = regex.compile(
    rf"(?rV1)[[\p{{L}}\p{{N}}]&&[{OLD}]](?=[^\p{{L}}\p{{N}}\p{{Cs}}\p{{Cn}}])|\S(?=[^\S\r\n])")
BEFORE_BLANK = regex.compile(r"(?r)\S(?=[^\S\r\n])")
SAFE_CUTS = {"gpt2": AFTER_LETTER, "cl100k": AFTER_LETTER, "o200k": BEFORE_BLANK, "llama3": AFTER_LETTER,
             "qwen2": AFTER_LETTER, "qwen3.5": BEFORE_BLANK, "smollm": AFTER_LETTER, "deepseek": BEFORE_BLANK}
PIECE = 1 << 16     # characters per piece of a stream
BUILT_IN = frozenset(PATTERNS)

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
STEPS = {
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL | {"use_regex": True}],
    "deepseek": [*map(isolated, (
        r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""" "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\r\n]*" "|\\s*[\r\n]+" r"|\s+(?!\S)|\s+")), BYTE_LEVEL]}


@lru_cache
def compile_pattern(name: str) -> regex.Pattern:
    """The compiled pattern called `name`. Raises ValueError listing the known names."""
    if name not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join([*PATTERNS, *STEPS])}: got {name!r}")
    return regex.compile(PATTERNS[name])


def word_finder(name: str) -> Callable[[str], Iterable[str]]:
    """The function that cuts a text into the words of the pattern called `name`; its classes are those of Unicode 16.0
    (but in a pattern of one's own, which has those of `regex`). Raises ValueError listing the known names."""
    if name in STEPS or name.startswith("["):
        return cutter(json.dumps(STEPS[name]) if name in STEPS else name, PATTERNS["gpt2"])
    find = compile_pattern(name).findall
    if name not in BUILT_IN:
        return find

    def words(text: str) -> list[str]:
        plain = pinned(text)
        if plain == text:
            return find(text)
        ends = [0, *accumulate(map(len, find(plain)))]
        return [text[start:end] for start, end in pairwise(ends)]
    return words


def register_pattern(name: str, pattern: str) -> None:
    """Make a pattern of one's own known by a name; its matches must tile every text. It is run by `regex`.

    Files of a tokenizer with such a pattern can be read wherever the same name is registered first.
    Raises ValueError if the name is taken by another pattern or `regex` cannot compile the pattern.
    """
    if name in STEPS or name.startswith("[") or PATTERNS.get(name, pattern) != pattern:
        raise ValueError(f"pattern {name!r} is known already, and is another one")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"pattern {name!r} is no regular expression: {error}") from None
    PATTERNS[name] = pattern


@lru_cache
def special_matcher(specials: frozenset[str]) -> re.Pattern:
    """Matches any of `specials` in a group; the longest first, so <|a|><|b|> wins over <|a|>."""
    return re.compile(f"({any_of(specials)})")


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD, as tiktoken does.

    A Python string may hold halves of UTF-16 pairs, which no UTF-8 can express.
    """
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_special(text: str, specials: frozenset[str] = frozenset()) -> Iterator[tuple[str, bool]]:
    """Yield (segment, is_special) for the whole text in order; only texts in `specials` count as special."""
    text = well_formed(text)
    if not specials:
        yield text, False
        return
    for i, segment in enumerate(special_matcher(specials).split(text)):
        if segment:
            yield segment, i % 2 == 1       # split() with a group alternates ordinary, special, ordinary ...


def safe_pieces(chunks: Iterable[str], specials: frozenset[str] = frozenset(), pattern: str = "gpt2") -> Iterator[str]:
    """Regroup a stream of text into pieces that can be tokenized one by one, at no difference to the ids.

    A piece ends at a safe cut or after a special token. Memory stays near PIECE characters unless the text has no
    safe place for longer (no letter, digit or space in it, or one endless word); then that stretch is held whole.
    """
    held: list[str] = []
    length, enough = 0, PIECE
    for part in slices(chunks):
        held.append(part)
        length += len(part)
        if length < enough:
            continue
        text = "".join(held)
        cut = last_safe_cut(text, specials, pattern)
        if cut:
            yield text[:cut]
        held, length = [text[cut:]], len(text) - cut
        enough = max(PIECE, 2 * length)     # doubling: an endless word is searched a few times, not once a line
    if length:
        yield "".join(held)


def slices(chunks: Iterable[str]) -> Iterator[str]:
    """The same stream with no chunk longer than PIECE."""
    for chunk in chunks:
        if not isinstance(chunk, str):
            raise ValueError(f"text must be str: got {type(chunk).__name__}")
        for start in range(0, len(chunk), PIECE):
            yield chunk[start:start + PIECE]


def last_safe_cut(text: str, specials: frozenset[str], pattern: str) -> int:
    """The last place to cut `text`, whatever text may follow it; 0 if there is none."""
    start, end = 0, len(text)
    if specials:
        end -= max(map(len, specials))      # a special token that begins by here is wholly in sight
        for match in special_matcher(specials).finditer(text):
            if match.start() > end:
                break
            start = match.end()
    place = SAFE_CUTS[pattern].search(text, start, end) if start < end and pattern in SAFE_CUTS else None
    return place.end() if place else start
