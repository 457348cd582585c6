"""A model card written from a run's own records: architecture, training, data, evaluation, safety, limits.

After Mitchell et al. 2019 (arXiv 1810.03993, "Model cards for model reporting"). Nothing is typed by hand but what is
given as text; a record that is not there is said to be missing.
"""
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from ..models.adapter_files import CONFIG, FOLDER, adapter_folder
from ..models.load import described
from ..models.pretrained import read_json
from ..storage.atomic import atomic_write
from ..storage.safetensors import parse_json_object
from ..train.log import read_log
from ..train.origin import ORIGIN
from .measure import EVALUATION, comparison_text
from .safety import MEASURES, change_text, rate_text

SAFETY = "safety.json"               # this and evaluation.json are looked for in the run, when none is given
LIMITS = ("It writes what is likely, not what is true.",
          "It learned from the texts named above, with their mistakes and prejudices.",
          "It is small: a model for learning how such models work, not for advice on anything that matters.")


def write_card(run: str | Path, output: str | Path | None = None, title: str | None = None,
               evaluation: Sequence[str | Path] = (), safety: str | Path | None = None,
               data_card: str | Path | None = None, limits: Sequence[str] = (),
               adapter: str | Path | None = None) -> Path:
    """Write MODEL_CARD.md into the run directory (or to `output`); returns its path.

    adapter: a directory with a LoRA adapter that is merged into the run's model: the card goes there, and is of both.

    evaluation: files that `minillm eval --json` printed; safety: one of `minillm safety --json` (by default
    evaluation.json and safety.json, which these commands leave in the run); data_card: a Markdown file to refer to.
    Raises FileNotFoundError for a run without config.json, ValueError for a file of another kind.
    """
    run, home = Path(run), Path(adapter or run)
    output = Path(output or home / "MODEL_CARD.md")
    evaluation = evaluation or [path for path in [home / EVALUATION] if path.exists()]
    safety = safety or (home / SAFETY if (home / SAFETY).exists() else None)
    parts = [f"# {title or home.resolve().name}", "## Model", model_part(run, adapter), "## Training",
             training_part(home), "## Data", data_part(home, run, data_card), "## Evaluation",
             evaluation_part(evaluation), "## Safety", safety_part(safety), "## Limits",
             "\n".join(f"- {limit}" for limit in (*LIMITS, *limits))]
    with atomic_write(output) as file:
        file.write("\n\n".join(parts) + "\n")
    return output


def model_part(run: Path, lora: str | Path | None = None) -> str:
    family, config, shapes = described(run)
    rows = [f"- {family} architecture, {sum(map(math.prod, shapes.values())) / 1e6:.1f}M parameters"]
    rows += [f"- {key}: {getattr(config, key)}" for key in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")]
    path = adapter_folder(lora) / CONFIG if lora else run / FOLDER / CONFIG
    if lora or path.exists():
        adapter = read_json(path)
        rows.append(f"- adapters of rank {adapter['r']} on {', '.join(adapter['target_modules'])}, merged; base: "
                    f"{adapter['base_model_name_or_path'] or 'not recorded'}")
    return "\n".join(rows)


def training_part(run: Path) -> str:
    rows = read_log(run)
    if not rows:
        return "No log of the training is there."
    last, validated = rows[-1], [row for row in rows if "val_loss" in row]
    loss = f"last training loss {last['train_loss']:.4f}" if "train_loss" in last else "no training loss recorded"
    lines = [f"- {int(last['step']):,} steps, {int(last['tokens']):,} tokens learned from", f"- {loss}"]
    if validated:
        best = min(validated, key=lambda row: row["val_loss"])
        lines.append("- best validation at step {:,}: {}".format(int(best["step"]), ", ".join(
            f"{name.removeprefix('val_')} {best[name]:.4f}" for name in best if name.startswith("val_"))))
    state = run / "last" / "state.json"
    if state.exists():
        lines.append(f"- seed {read_json(state).get('seed')}, data fingerprint {read_json(state).get('data')}")
    return "\n".join(lines)


def data_part(home: Path, run: Path, data_card: str | Path | None) -> str:
    """Of the runs behind the model; of an adapter whose own do not lead to its base, of that, too."""
    runs = lineage(home)
    runs += [one for one in lineage(run) if one.resolve() not in {known.resolve() for known in runs}]
    lines = [f"See [{Path(data_card).name}]({data_card})."] if data_card else []
    lines += chain(*map(learned_from, runs))
    return "\n".join(lines) or "No record of the data is in the run."


def lineage(run: Path) -> list[Path]:
    """The run, its base, the base of that, ... as far as they are there."""
    runs = [run]
    while (runs[-1] / ORIGIN).exists() and (base := read_json(runs[-1] / ORIGIN)["base"]) and Path(base) not in runs:
        runs.append(Path(base))
    return runs


def learned_from(run: Path) -> list[str]:
    """Lines on the training data of one run."""
    lines, shards = [], run / "data" / "shards.json"
    if (run / ORIGIN).exists():
        o = read_json(run / ORIGIN)
        base = f", {o.get('role', 'starting from')} {o['base']}" if o["base"] else ""
        lines.append(f"- {o['how']} on {o['data']}: {o['records']:,} records, {o['held out']:,} more held out{base}")
    if shards.exists():
        lines += [f"- {name}: {s['documents']:,} documents, {s['bytes'] / 1e6:.2f} MB, {s['tokens']:,} tokens"
                  for name, s in read_json(shards)["splits"].items()]
    return lines


def evaluation_part(paths: Sequence[str | Path]) -> str:
    rows: list[dict] = []
    comparisons: list[dict] = []
    for path in paths:
        found = parse_json_object(Path(path).read_bytes(), str(path))
        if "rows" not in found or "comparisons" not in found:
            raise ValueError(f"{path}: expected what `minillm eval --json` prints")
        rows += found["rows"]
        comparisons += found["comparisons"]
    if not rows:
        return "Not evaluated."
    lines = ["| task | model | value | 95% interval | items |", "|---|---|---:|---|---:|"]
    for r in rows:
        between = f"{r['low']:.4f} to {r['high']:.4f}" if r["low"] is not None else ""
        lines.append(f"| {r['task']} | {r.get('model', '')} | {r['value']:.4f} | {between} | {r['items']:,} |")
    return "\n".join(lines + [""] * bool(comparisons) + [f"- {comparison_text(c)}" for c in comparisons])


def safety_part(path: str | Path | None) -> str:
    if not path:
        return "Not measured."
    found = parse_json_object(Path(path).read_bytes(), str(path))
    if "rates" not in found:
        raise ValueError(f"{path}: expected what `minillm safety --json` prints")
    lines = ["| prompts | number | refused | toxic | personal data |", "|---|---:|---:|---:|---:|"]
    for row in found["rates"]:
        lines.append(f"| {row['category']} | {row['prompts']} | {' | '.join(rate_text(row[m]) for m in MEASURES)} |")
    return "\n".join(lines + [""] * bool(found["changes"]) + [f"- {change_text(d)}" for d in found["changes"]])
