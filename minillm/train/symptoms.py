"""What a log says about a run's health: cheap checks of its rows, for the progress line, the verdict and the doctor.

Each check takes the rows of log.csv so far and the run's settings, and gives a Finding or None. What needs the model or
the data is in workbench/doctor.py, which begins with these.
"""
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

Rows = Sequence[Mapping[str, float]]
Settings = Mapping[str, Any]                # of TrainConfig, and the model's vocab_size
ENOUGH = 5                                  # rows after the warm-up, from which on a log says something


class Finding(NamedTuple):
    """An illness, the numbers that show it, and what to change."""

    illness: str
    evidence: str
    advice: str


def nothing_learned(rows: Rows, settings: Settings) -> Finding | None:
    """After the warm-up the loss is still that of a blind guess, ln V."""
    losses = after_warmup(rows, settings, "train_loss")
    blind = math.log(settings.get("vocab_size", 1))
    if len(losses) < ENOUGH or late(losses) < 0.95 * blind:
        return None
    return Finding("loss not decreasing", f"loss {late(losses):.2f}, a blind guess costs {blind:.2f}",
                   f"change train.lr, now {settings['lr']:g}, towards 3e-4; minillm doctor tests which rate learns")


def rising_loss(rows: Rows, settings: Settings) -> Finding | None:
    """The training loss was lower before, by a tenth."""
    losses = after_warmup(rows, settings, "train_loss")
    size = max(ENOUGH, len(losses) // 5)                          # as `late` takes
    lowest = min((median(losses[i:i + size]) for i in range(0, len(losses) - size, size)), default=math.inf)
    if not losses or late(losses) < 1.1 * lowest + 0.1:
        return None
    return Finding("learning rate too high", f"loss {late(losses):.2f}, it was {lowest:.2f} before",
                   f"lower train.lr, now {settings['lr']:g}, by three, or lengthen train.warmup")


def exploding_gradients(rows: Rows, settings: Settings) -> Finding | None:
    """The gradient's norm has grown tenfold since the warm-up, or is a hundred times what it is clipped to."""
    norms = after_warmup(rows, settings, "grad_norm")
    if len(norms) < ENOUGH:
        return None
    first, now = median(norms[:ENOUGH]), late(norms)
    if now < max(10 * first, 5.0) and now < 100 * (settings.get("clip") or 1.0):
        return None
    return Finding("exploding gradients", f"gradient norm {now:.3g}, after the warm-up {first:.3g}",
                   f"set train.clip to 1 (now {settings.get('clip', 0):g}), lower train.lr, or lengthen train.warmup")


def over_fitting(rows: Rows, settings: Settings) -> Finding | None:
    """The validation loss has risen since its best, or the training loss, which has not, is far below it."""
    measured = [row for row in rows if "val_loss" in row]
    if len(measured) < 2 or rising_loss(rows, settings):
        return None
    best, last = min(measured, key=lambda row: row["val_loss"]), measured[-1]
    trained = late([row["train_loss"] for row in rows if row["step"] <= last["step"] and "train_loss" in row])
    if last["val_loss"] < 1.03 * best["val_loss"] and trained > 0.75 * last["val_loss"]:
        return None
    if trained > last["val_loss"]:
        return None
    return Finding("over-fitting", f"validation loss {last['val_loss']:.2f}, at best {best['val_loss']:.2f} at step "
                   f"{best['step']:.0f}; training loss {trained:.2f}",
                   f"more data, or fewer train.steps (about {best['step']:.0f}), model.dropout=0.1, a smaller n_embd; "
                   "the run directory holds the best model")


def suspiciously_low(rows: Rows, settings: Settings) -> Finding | None:
    """The validation text costs less than text can, or far less than the training text."""
    measured = [row for row in rows if "val_bpb" in row]
    trained = late([row["train_loss"] for row in rows if "train_loss" in row])
    if not measured or measured[-1]["val_bpb"] > 0.15 and measured[-1]["val_loss"] > 0.7 * trained:
        return None
    return Finding("leak", f"validation loss {measured[-1]['val_loss']:.3f} ({measured[-1]['val_bpb']:.3f} bits per "
                   f"byte), training loss {trained:.3f}", "look for validation text in the training data "
                   "(minillm data dedup), and for targets that are not shifted")


# In this order: the first is shown in the progress line.
SYMPTOMS = (nothing_learned, exploding_gradients, rising_loss, suspiciously_low, over_fitting)


def symptoms(rows: Rows, settings: Settings) -> list[Finding]:
    """What all the cheap checks find."""
    return [found for check in SYMPTOMS if (found := check(rows, settings))]


def warning(rows: Rows, settings: Settings) -> str:
    """For the progress line: the first illness in capitals, or nothing."""
    found = symptoms(rows, settings)
    return f"{found[0].illness.upper()}  " if found else ""


def verdict(rows: Rows, settings: Settings) -> str:
    """One line at the end of a run: what the log shows, and what to try next."""
    found = symptoms(rows, settings)
    if found:
        return f"verdict: {found[0].illness}: {found[0].evidence}. Try: {found[0].advice}"
    if not after_warmup(rows, settings, "train_loss"):
        return f"verdict: too short to judge, all of it was warm-up. Try: train.warmup below {settings['warmup']}"
    values = [row["val_loss"] for row in rows if "val_loss" in row]
    if len(values) > 2 and values[-1] == min(values) and values[-1] < 0.98 * values[-2]:
        return "verdict: healthy, and the validation loss was still falling. Try: more train.steps"
    return "verdict: healthy, nothing suspicious in the log. Try: a larger model.n_embd, or more data"


def after_warmup(rows: Rows, settings: Settings, column: str) -> list[float]:
    """A column's values after the warm-up."""
    return [row[column] for row in rows if column in row and row["step"] > settings.get("warmup", 0)]


def late(values: Sequence[float]) -> float:
    """The median of the last fifth, at least of ENOUGH values; infinity for none."""
    return median(values[-max(ENOUGH, len(values) // 5):]) if values else math.inf
