"""Compare tokenizers on a text: bytes per token, use of the vocabulary, parameters and FLOPs that it costs a model.

A larger vocabulary makes texts shorter, so a model computes less for each byte; but its embedding has more rows, of
which rare ones learn little, and its last layer computes a logit for each. So the table shows, for each kind of text,
bytes per token, and for the whole: the share of the vocabulary that the text uses, embedding parameters, and the FLOPs
of a forward pass per byte of text:

    flops = 2 * (12 * n_layer * n_embd^2 + n_embd * vocab_size)        a token; matrices only, attention's scores apart
    flops_per_byte = flops / bytes_per_token
"""
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..storage.atomic import AnyPath, atomic_write
from .bpe import Tokenizer

KINDS = ("prose", "code", "other scripts")
CODE = (".py", ".c", ".h", ".cpp", ".cu", ".js", ".ts", ".rs", ".go", ".java", ".sh", ".json", ".toml", ".html", ".css")
LATIN_SHARE = 0.7           # of the letters; below it a text counts as another script
SAMPLE = 20_000             # characters looked at to decide that


def kind_of(name: str, text: str) -> str:
    """One of KINDS: by the file's ending, then by the share of Latin letters."""
    if name.lower().endswith(CODE):
        return "code"
    letters = [char for char in text[:SAMPLE] if char.isalpha()]
    latin = sum(char.isascii() or "LATIN" in unicodedata.name(char, "") for char in letters)
    return "prose" if latin >= LATIN_SHARE * len(letters) else "other scripts"


def compare(tokenizers: dict[str, Tokenizer], texts: Iterable[tuple[str, str]], n_layer: int = 12, n_embd: int = 768
            ) -> list[dict]:
    """A row per tokenizer: vocab_size, bytes_per_token {kind: figure, "all": figure}, vocabulary_used (share),
    embedding_parameters, flops_per_byte. texts: (name, text) pairs. Raises ValueError if they hold nothing."""
    by_kind: dict[str, list[str]] = {kind: [] for kind in KINDS}
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
    return {"tokenizer": name, "vocab_size": tok.vocab_size, "bytes_per_token": ratio,
            "vocabulary_used": float(used.mean()), "embedding_parameters": tok.vocab_size * n_embd,
            "flops_per_byte": flops / ratio["all"]}


def compare_page(rows: list[dict]) -> str:
    """The rows as a table, one column a tokenizer."""
    kinds = list(rows[0]["bytes_per_token"])
    lines = [["", *(row["tokenizer"] for row in rows)],
             ["vocabulary", *(f"{row['vocab_size']:,}" for row in rows)],
             *([f"bytes per token, {kind}", *(f"{row['bytes_per_token'][kind]:.3f}" for row in rows)]
               for kind in kinds),
             ["vocabulary used", *(f"{row['vocabulary_used']:.1%}" for row in rows)],
             ["embedding parameters", *(f"{row['embedding_parameters'] / 1e6:.2f} M" for row in rows)],
             ["forward FLOPs per byte", *(f"{row['flops_per_byte'] / 1e6:.1f} M" for row in rows)]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)


def plot(rows: list[dict], path: AnyPath) -> Path | None:
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
        label = f"{row['tokenizer']} ({row['vocab_size']:,})"
        axes.bar(places, list(row["bytes_per_token"].values()), width, label=label)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(path)
