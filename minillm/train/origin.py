"""The provenance of a run: base model and data, written before the first step, read by the model card."""
from pathlib import Path

from ..launch import first_process
from ..storage.atomic import printable, write_json
from ..storage.lock import exclusive
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import save_tokenizer
from .checkpoint import ORIGIN, checkpoint_exists


def begin(out: str | Path, tokenizer: Tokenizer, how: str, base: str | Path | None, data: str | Path, learned: int,
          held_out: int, resume: str = "never", role: str = "starting from") -> None:
    """Write what a run directory holds before the first step: the tokenizer, and the model's provenance.

    how: "fine-tuned" and so on; base: the model it starts from, role: what that is to it; learned, held_out: records.
    A run that is resumed has both; were they written, another's run would lose its own before `train` refuses.
    """
    if not first_process():
        return
    with exclusive(out):
        if resume != "never" and checkpoint_exists(Path(out)):
            return
        save_tokenizer(tokenizer, out)
        write_json(Path(out) / ORIGIN, {"how": how, "base": base and printable(base), "role": role,
                                        "data": printable(data), "records": learned, "held out": held_out})
