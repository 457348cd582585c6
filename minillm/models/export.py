"""A model in another program's form: one GGUF file for llama.cpp, or a directory for transformers."""
import json
from pathlib import Path
from typing import Any

from ..storage.atomic import AnyPath
from .gguf import write_gguf
from .load import load
from .quantized import dequantized_model

TOKENIZER_CONFIG = "tokenizer_config.json"


def export_gguf(model_path: AnyPath, out: AnyPath, form: str) -> dict[str, Any]:
    """Write the model of a directory as a GGUF file; returns what was written. Raises as `load` and `write_gguf` do."""
    model, tokenizer = load(model_path)
    name = Path(model_path).resolve().stem
    counts = write_gguf(out, dequantized_model(model), tokenizer, form, name, chat_template_of(model_path))
    return {"out": str(out), "tensors": sum(counts.values()), "bytes": Path(out).stat().st_size,
            "types": ", ".join(f"{n} {kind}" for kind, n in counts.items())}


def export_directory(model_path: AnyPath, out: AnyPath) -> dict[str, Any]:
    """Write config.json, model.safetensors and the tokenizer's files."""
    if Path(out).exists() and any(Path(out).iterdir()):
        raise ValueError(f"--out {out}: is not empty: use a new directory")
    model, tokenizer = load(model_path)
    model = dequantized_model(model)
    model.save_pretrained(out, tokenizer.eot_token)
    tokenizer.save(out)
    return {"out": str(out), "tensors": len(model.params), "types": f"{len(model.params)} F32",
            "bytes": sum(file.stat().st_size for file in Path(out).iterdir())}


def chat_template_of(directory: AnyPath) -> str | None:
    """The Jinja text of a directory, if it has one."""
    path = Path(directory) / TOKENIZER_CONFIG
    if not path.is_file():
        return None
    template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    return template if isinstance(template, str) else None
