"""Our models inside EleutherAI's lm-evaluation-harness (Gao et al. 2021): its tasks, its scoring, our forward pass.

    from lm_eval import simple_evaluate
    simple_evaluate(model=harness.adapter("runs/mine"), tasks=["my_task"],
                    task_manager=TaskManager(include_path="tasks/"))

or `minillm eval runs/mine --tasks harness:TASK --harness-path tasks/`. The harness asks a model three things: the
log-probability of a continuation and whether it is the greedy one; that of a whole text; and a text up to a stop. Needs
`pip install 'minillm[harness]'`.
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..generation.decode import stream
from ..generation.text import first_token, text_of
from ..models.gpt2 import GPT
from ..models.load import load
from ..tokenizer import Tokenizer
from ..tokenizer.roles import document_start, opened

LONGEST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")     # one setting, by many names


def continuation_score(model: GPT, before: list[int], after: list[int]) -> tuple[float, bool]:
    """(log p(after | before) in nats, whether `after` is the greedy continuation). Ids; `before` not empty."""
    ids = np.array((before + after)[-model.config.block_size - 1:])
    logits = model.forward(ids[None, :-1])[0][0, -len(after):].astype(np.float64)          # (len(after), V)
    top = logits.max(1)
    logsum = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    wanted = ids[-len(after):]
    return float((logits[np.arange(len(after)), wanted] - logsum).sum()), bool((logits.argmax(1) == wanted).all())


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
            return [continuation_score(model, before, after) for _, before, after in requests]

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
    return sum(continuation_score(model, *make_disjoint_window(window))[0] for window in windows)


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
