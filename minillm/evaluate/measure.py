"""`minillm eval`: run tasks on one model or two, as rows with intervals, and compare the two item by item."""
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.sources.files import read_documents
from ..models.load import load
from ..progress import Progress
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer
from . import choice, harness, perplexity, samples, statistics

TASKS = "ppl, bpb, mc:FILE.jsonl, gen:FILE.jsonl, samples, memory, harness:TASK"
SAMPLES, SAMPLE_TOKENS = 8, 128


def evaluate(directories: Sequence[AnyPath], tasks: Sequence[str], data: Sequence[AnyPath] | None = None,
             backend: str = "auto", seed: int = 0, harness_path: AnyPath | None = None) -> dict[str, Any]:
    """Rows {task, model, value, low, high, items} for each model, and comparisons if there are two.

    directories: one or two. tasks: list of names as in TASKS; ppl, bpb and memory read `data` (files and folders),
    harness runs a task of lm-evaluation-harness, its own or one in `harness_path`.
    Raises ValueError for an unknown task or one without data, FileNotFoundError.
    """
    if not tasks:
        raise ValueError(f"--tasks: nothing to measure: expected some of {TASKS}")
    texts = documents(tasks, data)
    rows, measured = [], []
    for directory in directories:
        model, tokenizer = load(directory, backend)
        found = {}
        if on_text := [task for task in tasks if task in ("ppl", "bpb")]:
            surprises = perplexity.surprises(model, tokenizer, texts, Progress("text", "document"))
            found |= {task: running_text(task, surprises) for task in on_text}
        for task in tasks:
            found |= run_task(task, model, tokenizer, texts, seed)
        rows += [{"task": name, "model": str(directory), **row} for name, (row, _) in found.items()]
        if outside := [task.removeprefix("harness:") for task in tasks if task.startswith("harness:")]:
            rows += [{"model": str(directory), **row} for row in harness.run(directory, outside, harness_path, backend)]
        measured.append({name: items for name, (_, items) in found.items() if items})
    return {"rows": rows, "comparisons": compared(measured[0], measured[1], seed) if len(measured) == 2 else []}


def documents(tasks: Sequence[str], data: Any) -> Any:
    """Texts of the documents in `data`, if a task asks for them."""
    needing = [task for task in tasks if task in ("ppl", "bpb", "memory")]
    if needing and not data:
        raise ValueError(f"--data: the task {needing[0]} needs files or folders with text")
    return [text for _, text in read_documents(data) if text.strip()] if needing else []


def run_task(task: str, model: Any, tokenizer: Tokenizer, texts: Any, seed: int) -> Any:
    """{name of a row: (row, items)}; items (numerators, denominators) are what another model is compared on."""
    kind, _, path = task.partition(":")
    if task in ("ppl", "bpb") or kind == "harness" and path:
        return {}                                            # done above
    if kind == "mc" and path:
        right = choice.answer_all(model, tokenizer, choice.read_questions(path), Progress("choices", "question"))
        return {f"mc {Path(path).stem} ({score})": accuracy(values) for score, values in right.items()}
    if kind == "gen" and path:
        right = samples.exact_matches(model, tokenizer, samples.read_problems(path),
                                      progress=Progress("answers", "problem"))
        return {f"gen {Path(path).stem}": accuracy(right)}
    if task in ("samples", "memory"):
        return written(task, model, tokenizer, texts, seed)
    raise ValueError(f"unknown task {task!r}: expected some of {TASKS}")


def running_text(kind: str, found: Any) -> Any:
    """(row, items) of the perplexity or the bits per byte of some documents."""
    nats = [s.nats for s in found]
    if kind == "bpb":
        sizes = [s.bytes * math.log(2) for s in found]
        value = perplexity.bits_per_byte(found)
        low, high = statistics.interval(nats, sizes)
    else:
        sizes = [s.tokens for s in found]
        value = perplexity.perplexity(found)
        low, high = (math.exp(min(700, x)) for x in statistics.interval(nats, sizes))
    known = len(found) > 1                                   # one document says nothing of how much documents differ
    return row(value, low if known else None, high if known else None, len(found)), (nats, sizes)


def accuracy(right: Any) -> Any:
    """Row and items of a list of right or wrong."""
    values, ones = [float(r) for r in right], [1.0] * len(right)
    return row(sum(values) / len(values), *statistics.share_interval(sum(right), len(right)), len(values)), (values,
                                                                                                             ones)


def written(task: str, model: Any, tokenizer: Tokenizer, texts: Any, seed: int) -> Any:
    """Rows on what the model writes by itself: diversity, or overlap with the given texts."""
    found = [samples.continuation(model, tokenizer, "", SAMPLE_TOKENS, 1.0, seed + i) for i in range(SAMPLES)]
    if task == "memory":
        corpus = "\n".join(texts).encode()
        longest = [len(samples.longest_overlap(text, corpus)) for text in found]
        return {"longest overlap (bytes)": (row(max(longest), None, None, SAMPLES), None),
                "mean longest overlap (bytes)": (row(sum(longest) / SAMPLES, None, None, SAMPLES), None)}
    repeated = sum(samples.repetition(text) for text in found) / SAMPLES
    return {"repeated 4-grams": (row(repeated, None, None, SAMPLES), None),
            **{f"distinct {n}-grams": (row(samples.distinct(found, n), None, None, SAMPLES), None) for n in (1, 2, 3)}}


def row(value: float | None, low: Any, high: Any, items: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "items": items}


def compared(first: Any, second: Any, seed: int = 0) -> Any:
    """The second model against the first on every task that both have items for, in nats per token for ppl.

    Perplexities of models that cut the text into different tokens cannot be compared; bits per byte can.
    """
    found = []
    for name in [name for name in first if name in second and first[name][1] == second[name][1]]:
        (a, sizes), (b, _) = first[name], second[name]
        result = statistics.compare(a, b, sizes, seed)
        if set(a) | set(b) <= {0.0, 1.0}:
            result["p"] = statistics.sign_test([x == 1 for x in a], [x == 1 for x in b])
        found.append({"task": name, **result})
    return found


def page(results: dict[str, Any]) -> str:
    """The table that people read."""
    lines = [f"{'task':<34}{'value':>12}  {'95% interval':<22}{'items':>7}  model"]
    for r in results["rows"]:
        between = f"{r['low']:.4f} to {r['high']:.4f}" if r["low"] is not None else ""
        lines.append(f"{r['task']:<34}{r['value']:>12.4f}  {between:<22}{r['items']:>7,}  {r['model']}")
    for c in results["comparisons"]:
        verdict = "a real difference" if c["p"] < 0.05 else "may be chance"
        lines.append(f"second minus first, {c['task']}: {c['difference']:+.4f} ({c['low']:+.4f} to {c['high']:+.4f}), "
                     f"p = {c['p']:.3g}: {verdict}")
    return "\n".join(lines)
