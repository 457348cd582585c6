"""Speculative decoding of a trained pair (`minillm distill`): the target alone and with a draft, in turns.

Checked first: the greedy text must be the target's own, token for token. Then for greedy and sampled text and several
k: time a token, the draft's acceptance rate, tokens a pass, and the speed-up beside the theory's, which counts a pass
over k + 1 tokens as one over a single token (`pass_cost` in the JSON says what it is, `draft_cost` is c).
"""
import statistics

import numpy as np

from minillm import GPT
from minillm.data.shards.format import open_shards
from minillm.generation import speculative
from minillm.generation.decode import steps
from minillm.generation.sampling import Sampling
from minillm.recipes.draft_pair import prompts_from, race, relative_costs

from .measure import report_row

KS, TEMPERATURES = (3, 5, 8), (0.0, 0.8)
PROMPTS, LENGTH = 8, 96


def rows(options, peaks, progress=None):
    """Rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    if not (options.target and options.draft):
        if options.all:
            return [], {}, {"pair": "needs --target DIR and --draft DIR"}
        raise ValueError("speculative needs --target DIR and --draft DIR: `minillm distill --out runs/pair` makes them")
    target, draft = GPT.from_pretrained(options.target), GPT.from_pretrained(options.draft)
    prompts = prompts_from(open_shards(f"{options.target}/data").val, PROMPTS)
    length = min(LENGTH, target.config.block_size - len(prompts[0]))
    drafts = {"draft": draft, "lookup": speculative.Lookup(target.config.vocab_size)}
    wrong = {name: lines for name in drafts if (lines := differences(target, drafts[name], prompts[0], length))}
    found = []
    for turn, k in enumerate(KS):
        if progress:
            progress(turn, len(KS), f"k = {k}")
        for name in [name for name in drafts if name not in wrong]:
            found += measured(target, name, drafts[name], prompts, k, length)
    return sorted(found, key=lambda row: (row["dims"], row["candidate"] != "plain", row["candidate"])), wrong, {}


def differences(target, draft, prompt, length):
    """What is wrong with the greedy text of a draft: nothing, or the first token that differs."""
    plain = [step.token for step in steps(target, prompt, length, Sampling(0))]
    drafted = [step.token for step in speculative.speculative_steps(target, draft, prompt, length, Sampling(0))]
    return [f"token {i} is {b}, the target's is {a}" for i, (a, b) in enumerate(zip(plain, drafted)) if a != b][:1]


def measured(target, name, draft, prompts, k, length):
    """Rows of one draft and k: with and without it, greedy and sampled."""
    costs = relative_costs(target, draft, k) if name == "draft" else {}
    size = f"{target.params.flat.size / 1e6:.1f}M"
    for temperature in TEMPERATURES:
        counts, plain, drafted = race(target, draft, prompts, k, temperature, length)
        dims = f"{size} temperature={temperature}"
        ratio = statistics.median(p / d for p, d in zip(plain, drafted))
        theory = speculative.theoretical_speedup(counts.acceptance, k, costs["c"]) if costs else None
        yield row(dims, f"plain beside {name} k={k}", plain, {"x_minillm": 1.0})
        yield row(dims, f"{name} k={k}", drafted, {
            "x_minillm": ratio, "x_theory": theory, "acceptance": counts.acceptance,
            "tokens_per_pass": counts.tokens_per_pass, "draft_cost": costs.get("c"), "pass_cost": costs.get("pass")})


def row(dims, candidate, seconds, figures):
    """One line of the report, with quartiles; times are milliseconds a token."""
    low, median, high = (1e3 * float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return report_row("speculative", dims, "generate", candidate, "float32", seconds, low_ms=low, high_ms=high,
                      tokens_per_second=1e3 / median, **figures)
