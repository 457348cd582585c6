"""Quantization of a model's directory, and its cost in relative error and bits per byte."""
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.shards.format import SIDECAR, Shards, open_shards, split_documents
from ..data.sources.files import read_documents
from ..kernels.select import select
from ..models.load import load_model, named_ends
from ..models.pretrained import read_json
from ..models.quantized import (
    Quantized,
    dequantized,
    dequantized_model,
    gemm_layout,
    multiplies_integers,
    quantize,
    save_quantized,
)
from ..progress import Report
from ..tokenizer import Tokenizer
from ..tokenizer.formats import TOKENIZER_FILES
from ..train.origin import ORIGIN
from .card import lineage
from .perplexity import bits_per_byte, surprises

TEXT = 300_000                 # bytes of text, at most, on which the change in bits per byte is measured


def quantize_directory(directory: str | Path, out: str | Path, weights: str = "int8", group: int = 0,
                       data: Sequence[str | Path] | None = None, backend: str = "auto",
                       progress: Report | None = None, arithmetic: str = "integer") -> dict:
    """Store a model's matrices in `weights` in the directory `out`, with its tokenizer; returns the costs as a dict.

    data: files and folders with text to measure bits per byte on (default: the validation split that the run, or the
    one it started from, was trained beside; at most TEXT bytes). arithmetic: as of `quantize`. Raises ValueError,
    FileNotFoundError.
    """
    directory, out = Path(directory), Path(out)
    if out.exists() and out.samefile(directory):
        raise ValueError(f"-o {out}: expected another directory than the model's own")
    model = load_model(directory, select(backend))
    quantized = quantize(model, weights, group, arithmetic)
    save_quantized(out, quantized, named_ends(directory, model.config.vocab_size))
    for name in TOKENIZER_FILES:
        if (directory / name).exists():
            shutil.copy(directory / name, out / name)
    return {"model": str(directory), "out": str(out), "weights": weights, "group": group,
            "arithmetic": "integer" if any(map(multiplies_integers, quantized.params.values())) else "float",
            "bytes_before": size_of(model), "bytes_after": size_of(quantized), "tensors": errors(model, quantized),
            "bits_per_byte": change_in_bits(directory, data, model, quantized, progress)}


def errors(model: Any, quantized: Any) -> dict[str, dict]:
    """{tensor: {"error": relative, "worst": relative error of the worst channel, "channel": which}} of each matrix.

    Relative: root of the summed squares of what changed, over that of the weights.
    """
    found, plain = {}, dequantized_model(model).params
    for name, matrix in quantized.params.items():
        if isinstance(matrix, Quantized):
            weight = gemm_layout(name, plain[name]).astype(np.float64)
            squares, size = np.square(dequantized(matrix) - weight).sum(axis=0), np.square(weight).sum(axis=0)
            channels = np.sqrt(squares / np.where(size > 0, size, 1))
            found[name] = {"error": float(np.sqrt(squares.sum() / (size.sum() or 1))),
                           "worst": float(channels.max()), "channel": int(channels.argmax())}
    return found


def size_of(model: Any) -> int:
    """Bytes of all parameters as they are stored."""
    parts = [part for _, value in model.params.items()
             for part in (value[:2] if isinstance(value, Quantized) else [value])]              # without panels
    return sum(part.nbytes for part in parts if part is not None)


def change_in_bits(directory: Path, data: Sequence[str | Path] | None, model: Any, quantized: Any,
                   progress: Report | None = None) -> dict[str, float] | None:
    """{"before", "after", "change": relative, "weights_only": the change by rounded weights alone, with activations
    in float32, "bytes": of text}, or None where there is no text."""
    shards = None if data else shards_behind(directory)
    if not (data or shards):
        return None
    tokenizer = Tokenizer.from_pretrained(directory)
    texts = first_bytes(texts_of(shards, data, tokenizer), TEXT)
    rounded = dequantized_model(quantized)
    rounds = any(map(multiplies_integers, quantized.params.values()))
    before, weights, *both = [surprises(each, tokenizer, texts, progress)
                              for each in (model, rounded, *([quantized] if rounds else []))]
    before_bits, weights_bits, *after = map(bits_per_byte, (before, weights, *both))
    after_bits = after[0] if after else weights_bits
    return {"before": before_bits, "after": after_bits, "change": after_bits / before_bits - 1,
            "weights_only": weights_bits / before_bits - 1, "bytes": sum(found.bytes for found in before)}


def shards_behind(directory: Path) -> Shards | None:
    """The shards that a run was pretrained on: its own, those it names, or those of the run that it started from."""
    for run in lineage(directory):
        named = [read_json(run / ORIGIN)["data"]] if (run / ORIGIN).exists() else []
        for place in (run / "data", *map(Path, named), run.parent / "data"):        # the last: of a story's stages
            if (place / SIDECAR).exists():
                return open_shards(place)
    return None


def texts_of(shards: Shards | None, data: Sequence[str | Path] | None, tokenizer: Tokenizer) -> Iterable[str]:
    """Documents of the files, or of the validation split."""
    if data or not shards:
        return (text for _, text in read_documents(data or []) if text.strip())
    documents = split_documents(shards.val, tokenizer)
    return (text for text in (document.decode(errors="replace") for document in documents) if text.strip())


def first_bytes(texts: Iterable[str], limit: int) -> list[str]:
    """The first texts, until they have `limit` bytes; a single long one is cut."""
    found: list[str] = []
    size = 0
    for text in texts:
        text = text.encode()[:limit - size].decode(errors="ignore")
        if text:
            found.append(text)
        size += len(text.encode())
        if size >= limit - 4:
            break
    return found


def quantization_page(results: dict) -> str:
    """The results as a table."""
    rows = [f"{'tensor':<28}{'error':>9}{'worst channel':>16}"]
    rows += [f"{name:<28}{row['error']:>9.4%}{row['worst']:>9.4%} ({row['channel']})"
             for name, row in results["tensors"].items()]
    saved = results["bytes_before"] / results["bytes_after"]
    rows.append(f"\n{results['out']}: {results['weights']}, {results['bytes_after'] / 1e6:,.1f} MB "
                f"(before: {results['bytes_before'] / 1e6:,.1f} MB, {saved:.2f} times as much)")
    integer, bits = results["arithmetic"] == "integer", results["bits_per_byte"]
    rows.append("matmuls: " + ("integers, of activations rounded to int8 by blocks of 128 inputs" if integer else
                               "float32, of weights as they are dequantized"))
    rows.append(f"bits per byte on {bits['bytes']:,} bytes: {bits['before']:.4f} before, {bits['after']:.4f} after "
                f"({bits['change']:+.3%}" + f"; {bits['weights_only']:+.3%} by the weights alone" * integer + ")"
                if bits else "bits per byte: not measured; give a text with --data")
    return "\n".join(rows)
