"""Where a run comes from: the record that a model card reads, written before the first step."""
from pathlib import Path
from typing import Any

from ..storage.atomic import AnyPath, write_json
from ..tokenizer.chat_template import save_tokenizer
from .checkpoint import checkpoint_exists

ORIGIN = "origin.json"


def begin(out: AnyPath, tokenizer: Any, how: str, base: AnyPath | None, data: Any, learned: int, held_out: int,
          resume: str = "never", role: str = "starting from") -> None:
    """What a run directory holds before the first step: the tokenizer, and where the model comes from, for its card.
    role: what the base is to the model.

    A run that is resumed has both; were they written, a run that is another's would lose its own before `train`
    refuses.
    """
    if resume == "auto" and checkpoint_exists(Path(out)):
        return
    save_tokenizer(tokenizer, out)
    write_json(Path(out) / ORIGIN, {"how": how, "base": base and str(base), "role": role, "data": str(data),
                                    "records": learned, "held out": held_out})
