"""A model in another program's form: one GGUF file for llama.cpp, or a directory for transformers."""
from pathlib import Path
from typing import Any

from ..storage.atomic import AnyPath
from ..tokenizer.chat_template import learned_ends, save_tokenizer
from .gguf import write_gguf
from .load import load, named_ends
from .quantized import dequantized_model


def export_gguf(model_path: AnyPath, out: AnyPath, form: str) -> dict[str, Any]:
    """Write the model of a directory as a GGUF file; returns what was written. Raises as `load` and `write_gguf` do."""
    model, tokenizer = load(model_path)
    name = Path(model_path).resolve().stem
    template = tokenizer.template.sources.get("default") if tokenizer.template else None
    counts = write_gguf(out, dequantized_model(model), tokenizer, form, name, template)
    return {"out": str(out), "tensors": sum(counts.values()), "bytes": Path(out).stat().st_size,
            "types": ", ".join(f"{n} {kind}" for kind, n in counts.items())}


def export_directory(model_path: AnyPath, out: AnyPath) -> dict[str, Any]:
    """Write config.json, model.safetensors and the tokenizer's files."""
    if Path(out).exists() and any(Path(out).iterdir()):
        raise ValueError(f"--out {out}: is not empty: use a new directory")
    model, tokenizer = load(model_path)
    model = dequantized_model(model)
    named = named_ends(model_path, model.config.vocab_size)
    model.save_pretrained(out, named if named.eos else learned_ends(tokenizer))
    save_tokenizer(tokenizer, out)
    return {"out": str(out), "tensors": len(model.params), "types": f"{len(model.params)} F32",
            "bytes": sum(file.stat().st_size for file in Path(out).iterdir())}
