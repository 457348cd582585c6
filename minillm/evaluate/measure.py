"""`minillm eval`: evaluation tasks on one model or two, as rows with confidence intervals and paired comparisons."""
import math
from collections.abc import Sequence
from pathlib import Path

from ..data.sources.files import read_documents
from ..data.sources.record_files import read_jsonl
from ..models.gpt2 import GPT
from ..models.load import load
from ..models.pretrained import read_json
from ..progress import Progress
from ..storage.atomic import write_json
from ..tokenizer import Tokenizer
from . import choice, harness, perplexity, samples, statistics

EVALUATION = "evaluation.json"
TASKS = "ppl, bpb, mc:FILE.jsonl, gen:FILE.jsonl, samples, memory, harness:TASK"
SAMPLES, SAMPLE_TOKENS = 8, 128
Measured = tuple[dict, tuple[list, list] | None]        # a row, and (numerators, denominators) to compare models by


def evaluate(directories: Sequence[str | Path], tasks: Sequence[str], data: Sequence[str | Path] | None = None,
             backend: str = "auto", seed: int = 0, harness_path: str | Path | None = None,
             adapter: str | Path | None = None) -> dict[str, list[dict]]:
    """Rows {task, model, value, low, high, items} for each model, and comparisons if there are two.

    directories: one or two. tasks: list of names as in TASKS; ppl, bpb and memory read `data` (files and folders),
    harness runs a task of lm-evaluation-harness, its own or one in `harness_path`. adapter: for the first model.
    Raises ValueError for an unknown task or one without data, FileNotFoundError.
    """
    if not tasks:
        raise ValueError(f"--tasks: nothing to measure: expected some of {TASKS}")
    texts = documents(tasks, data)
    rows: list[dict] = []
    measured = []
    labels = [f"{directory}{f' + {lora}' if lora else ''}" for directory, lora in zip(directories, (adapter, None))]
    for label, directory, lora in zip(labels, directories, (adapter, None)):
        model, tokenizer = load(directory, backend, adapter=lora)
        found: dict[str, Measured] = {}
        if on_text := [task for task in tasks if task in ("ppl", "bpb")]:
            surprises = perplexity.surprises(model, tokenizer, texts, Progress("text", "document"))
            found |= {task: running_text(task, surprises) for task in on_text}
        for task in tasks:
            found |= run_task(task, model, tokenizer, texts, seed)
        rows += [{"task": name, "model": label, **row} for name, (row, _) in found.items()]
        if outside := [task.removeprefix("harness:") for task in tasks if task.startswith("harness:")]:
            rows += [{"model": label, **row}
                     for row in harness.run_tasks(directory, outside, harness_path, backend, lora=lora)]
        measured.append({name: items for name, (_, items) in found.items() if items})
    names = {"first": labels[0], "second": labels[-1]}
    comparisons = compared(measured[0], measured[1], seed) if len(measured) == 2 else []
    return {"rows": rows, "comparisons": [names | comparison for comparison in comparisons]}


def store(results: dict[str, list[dict]], run: str | Path) -> Path:
    """Add the results to evaluation.json in a run, where `minillm card` finds them; what is measured again is replaced.
    Returns the path."""
    path = Path(run) / EVALUATION
    known = read_json(path) if path.exists() else {}
    write_json(path, {part: [old for old in known.get(part, []) if subject(old) not in map(subject, found)] + found
                      for part, found in results.items()}, indent=1)
    return path


def subject(row: dict) -> tuple:
    """What a row or a comparison is about: the task and the models."""
    return tuple(row.get(key) for key in ("task", "model", "first", "second"))


def documents(tasks: Sequence[str], data: Sequence[str | Path] | None) -> list[str]:
    """Texts of the documents in `data`, if a task asks for them."""
    needing = [task for task in tasks if task in ("ppl", "bpb", "memory")]
    if not needing:
        return []
    if not data:
        raise ValueError(f"--data: the task {needing[0]} needs files or folders with text")
    return [text for _, text in read_documents(data) if text.strip()]


def run_task(task: str, model: GPT, tokenizer: Tokenizer, texts: list[str], seed: int) -> dict[str, Measured]:
    """{name of a row: (row, items)}; items (numerators, denominators) are what another model is compared on."""
    kind, _, path = task.partition(":")
    if task in ("ppl", "bpb") or kind == "harness" and path:
        return {}                                            # done above
    if kind == "mc" and path:
        questions = read_jsonl(path, choice.question_of)
        right = choice.answer_all(model, tokenizer, questions, Progress("choices", "question"))
        return {f"mc {Path(path).stem} ({score})": accuracy(values) for score, values in right.items()}
    if kind == "gen" and path:
        problems = read_jsonl(path, samples.problem_of)
        matches = samples.exact_matches(model, tokenizer, problems, progress=Progress("answers", "problem"))
        return {f"gen {Path(path).stem}": accuracy(matches)}
    if task in ("samples", "memory"):
        return sample_rows(task, model, tokenizer, texts, seed)
    raise ValueError(f"unknown task {task!r}: expected some of {TASKS}")


def running_text(kind: str, found: list[perplexity.Surprise]) -> Measured:
    """(row, items) of the perplexity or the bits per byte of some documents."""
    nats, low, high = [s.nats for s in found], None, None
    if kind == "bpb":
        sizes, value = [s.bytes * math.log(2) for s in found], perplexity.bits_per_byte(found)
    else:
        sizes, value = [float(s.tokens) for s in found], perplexity.perplexity(found)
    if len(found) > 1:                                       # one document says nothing of how much documents differ
        low, high = statistics.interval(nats, sizes)
        if kind == "ppl":
            low, high = (math.exp(min(700, x)) for x in (low, high))
    return result_row(value, low, high, len(found)), (nats, sizes)


def accuracy(right: list[bool]) -> Measured:
    """(row, items) of a list of right or wrong."""
    values, ones = [float(r) for r in right], [1.0] * len(right)
    low, high = statistics.share_interval(sum(right), len(right))
    return result_row(sum(values) / len(values), low, high, len(values)), (values, ones)


def sample_rows(task: str, model: GPT, tokenizer: Tokenizer, texts: list[str], seed: int) -> dict[str, Measured]:
    """Rows on unconditional samples: their diversity, or their overlap with the given texts."""
    found = [samples.continuation(model, tokenizer, "", SAMPLE_TOKENS, 1.0, seed + i) for i in range(SAMPLES)]
    if task == "memory":
        corpus = "\n".join(texts).encode()
        longest = [len(samples.longest_overlap(text, corpus)) for text in found]
        values: dict[str, float] = {"longest overlap (bytes)": max(longest),
                                    "mean longest overlap (bytes)": sum(longest) / SAMPLES}
    else:
        values = {"repeated 4-grams": sum(samples.repetition(text) for text in found) / SAMPLES,
                  **{f"distinct {n}-grams": samples.distinct(found, n) for n in (1, 2, 3)}}
    return {name: (result_row(value, None, None, SAMPLES), None) for name, value in values.items()}


def result_row(value: float, low: float | None, high: float | None, items: int) -> dict:
    return {"value": value, "low": low, "high": high, "items": items}


def compared(first: dict, second: dict, seed: int = 0) -> list[dict]:
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


def evaluation_page(results: dict[str, list[dict]]) -> str:
    """The results as a table."""
    lines = [f"{'task':<34}{'value':>12}  {'95% interval':<22}{'items':>7}  model"]
    for r in results["rows"]:
        between = f"{r['low']:.4f} to {r['high']:.4f}" if r["low"] is not None else ""
        lines.append(f"{r['task']:<34}{r['value']:>12.4f}  {between:<22}{r['items']:>7,}  {r['model']}")
    return "\n".join(lines + list(map(comparison_text, results["comparisons"])))


def comparison_text(c: dict) -> str:
    """One of the comparisons as text."""
    verdict = "a real difference" if c["p"] < 0.05 else "may be chance"
    second, first = c.get("second", "second"), c.get("first", "first")
    return (f"{second} minus {first}, {c['task']}: {c['difference']:+.4f} ({c['low']:+.4f} to {c['high']:+.4f}), "
            f"p = {c['p']:.3g}: {verdict}")
