"""Which of two tokenizers suits a text and a model better? What a vocabulary costs and what it buys.

A larger vocabulary makes texts shorter, so a model computes less for each byte; but it has more rows in its embedding, of
which rare ones learn little, and its last layer computes a logit for each. So the table shows, for each kind of text,
bytes per token, and for the whole: the share of the vocabulary that the text uses, embedding parameters, and the FLOPs
of a forward pass per byte of text:

    FLOPs per token = 2 * (12 * n_layer * n_embd^2 + n_embd * vocab_size)      (matrices only, attention's scores apart)
    FLOPs per byte  = FLOPs per token / bytes per token
"""
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..storage.atomic import atomic_write
from .bpe import Tokenizer

KINDS = ("prose", "code", "other scripts")
CODE = (".py", ".c", ".h", ".cpp", ".cu", ".js", ".ts", ".rs", ".go", ".java", ".sh", ".json", ".toml", ".html", ".css")
LATIN_SHARE = 0.7           # of the letters; below it a text counts as another script
SAMPLE = 20_000             # characters looked at to decide that
EXAMPLE_BYTES = 2_000_000   # of each kind, where no files are given


def kind_of(name: str, text: str) -> str:
    """One of KINDS: by the file's ending, then by the share of Latin letters."""
    if name.lower().endswith(CODE):
        return "code"
    letters = [char for char in text[:SAMPLE] if char.isalpha()]
    latin = sum(char.isascii() or "LATIN" in unicodedata.name(char, "") for char in letters)
    return "prose" if latin >= LATIN_SHARE * len(letters) else "other scripts"


def example_texts() -> list[tuple[str, str]]:
    """(name, text) of English and of Python, which every installation has: Python's language reference, our sources."""
    from ..data.sources import pydocs as corpus
    sources = sorted(Path(corpus.__file__).resolve().parents[1].rglob("*.py"))
    code = [(str(path), path.read_text(encoding="utf-8")) for path in sources]
    return first_bytes(sorted(corpus.language_reference().items())) + first_bytes(code)


def first_bytes(texts: list[tuple[str, str]], most: int = EXAMPLE_BYTES) -> list[tuple[str, str]]:
    sizes = np.cumsum([len(text.encode("utf-8")) for _, text in texts])
    return texts[:max(1, int(np.searchsorted(sizes, most)))]


def compare(tokenizers: dict[str, Tokenizer], texts: Iterable[tuple[str, str]], n_layer: int = 12, n_embd: int = 768
            ) -> list[dict]:
    """A row per tokenizer: vocab_size, bytes_per_token {kind: figure, "all": figure}, vocabulary_used (share),
    embedding_parameters, flops_per_byte. texts: (name, text) pairs. Raises ValueError if they hold nothing."""
    by_kind = {kind: [] for kind in KINDS}
    for name, text in texts:
        if text:
            by_kind[kind_of(name, text)].append(text)
    by_kind = {kind: found for kind, found in by_kind.items() if found}
    if not by_kind:
        raise ValueError("--text: there is no text to compare on")
    return [measure(name, tok, by_kind, n_layer, n_embd) for name, tok in tokenizers.items()]


def measure(name: str, tok: Tokenizer, by_kind: dict[str, list[str]], n_layer: int, n_embd: int) -> dict:
    used, ratio, all_bytes, all_tokens = np.zeros(tok.vocab_size, bool), {}, 0, 0
    for kind, texts in by_kind.items():
        ids, _ = tok.encode_batch_array(texts, disallowed_special=())
        size = sum(len(text.encode("utf-8")) for text in texts)
        used[ids] = True
        ratio[kind] = size / len(ids)
        all_bytes, all_tokens = all_bytes + size, all_tokens + len(ids)
    ratio["all"] = all_bytes / all_tokens
    flops = 2 * (12 * n_layer * n_embd ** 2 + n_embd * tok.vocab_size)
    return {"tokenizer": name, "vocab_size": tok.vocab_size, "bytes_per_token": ratio, "vocabulary_used": float(used.mean()),
            "embedding_parameters": tok.vocab_size * n_embd, "flops_per_byte": flops / ratio["all"]}


def page(rows: list[dict]) -> str:
    """The rows as a table, one column a tokenizer."""
    kinds = list(rows[0]["bytes_per_token"])
    lines = [["", *(row["tokenizer"] for row in rows)],
             ["vocabulary", *(f"{row['vocab_size']:,}" for row in rows)],
             *([f"bytes per token, {kind}", *(f"{row['bytes_per_token'][kind]:.3f}" for row in rows)] for kind in kinds),
             ["vocabulary used", *(f"{row['vocabulary_used']:.1%}" for row in rows)],
             ["embedding parameters", *(f"{row['embedding_parameters'] / 1e6:.2f} M" for row in rows)],
             ["forward FLOPs per byte", *(f"{row['flops_per_byte'] / 1e6:.1f} M" for row in rows)]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))])
                     for line in lines)


def plot(rows: list[dict], path) -> Path | None:
    """Bars of bytes per token by kind of text, as a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    kinds = list(rows[0]["bytes_per_token"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(ylabel="bytes per token", title="Longer tokens, shorter texts")
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        places = np.arange(len(kinds)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(places, list(row["bytes_per_token"].values()), width, label=f"{row['tokenizer']} ({row['vocab_size']:,})")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(path)
