"""Our models inside EleutherAI's lm-evaluation-harness (Gao et al. 2021): its tasks, its scoring, our forward pass.

    from lm_eval import simple_evaluate
    simple_evaluate(model=harness.adapter("runs/mine"), tasks=["my_task"],
                    task_manager=TaskManager(include_path="tasks/"))

or `minillm eval runs/mine --tasks harness:TASK --harness-path tasks/`. The harness asks a model three things: the
log-probability of a continuation and whether it is the greedy one; that of a whole text; and a text up to a stop. Needs
`pip install 'minillm[harness]'`.
"""
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from ..generation.decode import stream
from ..generation.text import first_token, text_of
from ..models.gpt2 import GPT
from ..models.load import load
from ..tokenizer import Tokenizer
from ..tokenizer.roles import document_start, opened
from .perplexity import groups

LONGEST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")     # one setting, by many names


def continuation_scores(model: GPT, pairs: Iterable[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """(log p(after | before) in nats, whether `after` is the greedy continuation) for each pair (before, after) of ids,
    `before` not empty. Several share a forward pass."""
    model, found = copy(model), []
    model.recompute = True                                                  # of a block keep its input only
    texts = ((before + after)[-model.config.block_size - 1:] + [len(after)] for before, after in pairs)
    for group in groups(texts):
        lengths = [len(text) - 2 for text in group]                         # inputs: all ids but the last
        x, _ = model.hidden(np.concatenate([text[:-2] for text in group])[None], lengths=lengths)
        for end, (*ids, count) in zip(np.cumsum(lengths), group):
            logits = model.ops.head(x[:, end - count:end], model.params[model.head])[0]        # (count, V)
            found.append(score(logits.astype(np.float64), np.array(ids[-count:])))
    return found


def score(logits: np.ndarray, wanted: np.ndarray) -> tuple[float, bool]:
    """(log-probability of the ids `wanted` (T,), whether each has the largest of its logits (T, V))."""
    top = logits.max(1)
    logsum = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float((logits[np.arange(len(wanted)), wanted] - logsum).sum()), bool((logits.argmax(1) == wanted).all())


def adapter(directory: str | Path, backend: str = "auto", dtype: type = np.float32,
            lora: str | Path | None = None) -> Any:
    """An object that lm_eval takes as its model; lora: a directory with a LoRA adapter for it. Raises ImportError
    without the extra `harness`."""
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError:
        raise ImportError("the adapter needs lm-eval: pip install 'minillm[harness]'") from None
    model, tokenizer = load(directory, backend, dtype, lora)

    class Adapter(TemplateLM):
        """lm_eval's interface, each method in terms of this package."""

        eot_token_id, prefix_token_id = tokenizer.eot_token, document_start(tokenizer)
        tokenizer_name = str(directory)
        max_length, max_gen_toks = model.config.block_size, default_length(model)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return tokenizer.encode_ordinary(string)

        def _loglikelihood_tokens(self, requests: list, **kwargs: Any) -> list[tuple[float, bool]]:
            return continuation_scores(model, ((before, after) for _, before, after in requests))

        def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
            return [rolling(model, tokenizer, request.args[0]) for request in requests]

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
            return [continued(model, tokenizer, *request.args) for request in requests]

    return Adapter()


def rolling(model: GPT, tokenizer: Tokenizer, text: str) -> float:
    """log p(text) in nats. A long one in the harness's windows, which do not overlap, to be comparable with other
    models' scores; perplexity.py's sliding windows give each token more context."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    ids = tokenizer.encode_ordinary(text)
    windows = get_rolling_token_windows(ids, document_start(tokenizer), model.config.block_size, 1)
    return sum(logp for logp, _ in continuation_scores(model, map(make_disjoint_window, windows)))


def continued(model: GPT, tokenizer: Tokenizer, context: str, settings: dict) -> str:
    """The text after `context`, greedy unless settings (lm_eval's gen_kwargs) ask for sampling, up to a stop string.

    As in the harness, of the context the last tokens are read that leave room for the longest answer.
    """
    until = settings.get("until") or []
    given = (settings[name] for name in LONGEST if settings.get(name) is not None)
    limit, length = model.config.block_size, int(next(given, default_length(model)))
    if not length < limit:
        raise ValueError(f"max_gen_toks must be below the model's context length, {limit}: got {length}")
    ids = (opened(tokenizer, tokenizer.encode_ordinary(context)) or [first_token(tokenizer)])[length - limit:]
    temperature = settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0
    return text_of(stream(model, ids, length, temperature), tokenizer, until)


def default_length(model: GPT) -> int:
    """The harness's 256 tokens of an answer, or half the context length where that is less."""
    return min(256, model.config.block_size // 2)


def run_tasks(directory: str | Path, tasks: Sequence[str], path: str | Path | None = None, backend: str = "auto",
              limit: int | None = None, lora: str | Path | None = None) -> list[dict]:
    """Rows {task, value, low, high, items} of harness tasks; path: a folder with task files (YAML); lora: as of
    adapter."""
    model = adapter(directory, backend, lora=lora)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    manager = TaskManager(include_path=path)
    if unknown := [task for task in tasks if not manager.match_tasks([task])]:
        raise ValueError(f"lm-evaluation-harness has no task {unknown[0]!r}, nor has --harness-path")
    found = simple_evaluate(model=model, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=0,
                            verbosity="ERROR")
    rows: list[dict] = []
    for task, values in found["results"].items():
        items = found["n-samples"][task]["effective"]
        rows += [{"task": f"{task} {name.partition(',')[0]}", "value": value, "low": None, "high": None, "items": items}
                 for name, value in values.items() if isinstance(value, float) and "stderr" not in name]
    return rows
