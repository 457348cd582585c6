"""The log of a run, log.csv: a row for every logged step; gradients.csv: the size of each layer's gradient, a row at
every validation; sources.csv: the validation loss of each source, where they are mixed; the progress line; and
failure.json: why a run died."""
import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..models.params import Params
from ..ops.optimizer.sum_squares import sum_squares
from ..storage.atomic import AnyPath, atomic_write, write_json

FAILURE, LOG, GRADIENTS, SOURCES = "failure.json", "log.csv", "gradients.csv", "sources.csv"
COLUMNS = ["step", "tokens", "train_loss", "lr", "grad_norm", "val_loss", "val_bpb", "tokens_per_second"]


def append_log(run: Path, state: dict, row: dict, columns: list[str] = COLUMNS, name: str = LOG) -> None:
    """One line at the end of log.csv, or of another such file."""
    path = run / name
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if new:
            writer.writeheader()
        writer.writerow({"step": state["step"], "tokens": state["tokens"]} | {k: f"{v:.6g}" for k, v in row.items()})


def append_gradients(run: Path, state: dict, grads: Params) -> None:
    """The size of each layer's gradient at this step, before clipping: which layer explodes or vanishes, since when."""
    sizes = layer_sizes(grads)
    append_log(run, state, sizes, ["step", "tokens", *sizes], GRADIENTS)


def layer_names(params: Params) -> list[str]:
    """Of each matrix: ["h.0.attn.c_attn", ...]."""
    return [name.removesuffix(".weight") for name, array in params.views.items() if array.ndim == 2]


def layer_sizes(params: Params) -> dict[str, float]:
    """The root of the mean square of each matrix: {"h.0.attn.c_attn": ...}."""
    matrices = [array for array in params.views.values() if array.ndim == 2]
    return {name: math.sqrt(sum_squares(array.reshape(-1)) / array.size)
            for name, array in zip(layer_names(params), matrices)}


def read_log(run: AnyPath, name: str = LOG) -> list[dict[str, float]]:
    """The rows of log.csv as dicts of numbers; empty cells are left out. A torn last line is dropped."""
    path = Path(run) / name
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [{k: float(v) for k, v in row.items() if v} for row in rows]


def trim_log(run: Path, step: int, columns: list[str] = COLUMNS, name: str = LOG) -> None:
    """Drop the rows that a resumed run is about to write again; those that stay get its columns."""
    rows = [row for row in read_log(run, name) if row.get("step", step + 1) <= step]
    if not (run / name).exists():
        return
    with atomic_write(run / name, newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: int(v) if k in ("step", "tokens") else f"{v:.6g}" for k, v in row.items()})


def describe(row: dict, state: dict) -> str:
    """The end of the progress line."""
    text = f"loss {row['train_loss']:.3f}"
    if state["best"]:
        text += f"  val {state['best']['val_loss']:.3f}"
        text += f" ({state['best']['val_bpb']:.3f} bits/byte)" if "val_bpb" in state["best"] else ""
    return text + f"  {row['tokens_per_second']:,.0f} tok/s"


@contextmanager
def recorded_failure(run: Path, state: dict, model: object) -> Iterator[None]:
    """Numbers or memory that end the training are written to failure.json; one of before is removed. model: config."""
    (run / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except (FloatingPointError, MemoryError) as error:
        write_json(run / FAILURE, {"step": state["step"], "kind": type(error).__name__, "message": str(error),
                                   "settings": state["settings"], "model": vars(model)})
        raise
