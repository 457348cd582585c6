"""`minillm plan --hours`: the law through small runs, what it leaves out, the settings, and the command whole."""
import json

import numpy as np
import pytest

from minillm.__main__ import main
from minillm.config import GPTConfig
from minillm.workbench import plan_hours as planner
from minillm.workbench.plan_hours import Fit, Run, fit, settings, stated_error, worth

LAW = Fit(1.7, 400.0, 410.0, 0.35, 0.3)
SIZES = ((10 ** 6, (1,)), (3 * 10 ** 6, (1, 2, 4)), (10 ** 7, (1,)))


def runs(noise=0.0):
    rng = np.random.default_rng(0)
    return [Run(n, k * 10 ** 7, LAW(n, k * 10 ** 7) * (1 + noise * rng.standard_normal())) for n, lengths in SIZES
            for k in lengths]


def test_a_law_is_found_again():
    found = fit(runs())
    assert found(3 * 10 ** 6, 2 * 10 ** 8) == pytest.approx(LAW(3 * 10 ** 6, 2 * 10 ** 8), rel=0.02)
    assert stated_error(runs(), 16 * 10 ** 7) == planner.LEAST_ERROR


def test_noise_is_stated():
    noisy = runs(0.05)
    longest = max(noisy, key=lambda run: run.parameters * run.tokens)
    spoilt = [run if run is not longest else run._replace(loss=1.5 * run.loss) for run in noisy]
    assert stated_error(spoilt, 16 * 10 ** 7) > 0.4


def test_tokens_seen_again_are_worth_less():
    assert worth(500, 0) == 500 and worth(500, 1000) == 500
    assert 3900 > worth(4000, 1000) > 3700                    # four passes are almost as good as fresh text
    assert worth(10 ** 9, 1000) == pytest.approx(1000 * (1 + planner.REPEATED))


def test_nothing_is_below_zero():
    found = fit([Run(10 ** 6, 10 ** 6, 3.0), Run(10 ** 6, 10 ** 7, 3.5), Run(10 ** 7, 10 ** 6, 3.2)])
    assert min(found.E, found.A, found.B) >= 0


def test_settings_grow_with_the_tokens():
    c = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, vocab_size=500)
    few, many = settings(c, 10 ** 4, "auto", 0), settings(c, 10 ** 9, "auto", 0, factor=2.0)
    assert few.batch_size == 4 and many.batch_size == 4096
    assert few.steps * few.batch_size * 128 == pytest.approx(10 ** 4, rel=0.1)
    assert many.lr == pytest.approx(2 * few.lr, rel=0.01) and many.warmup == many.steps // 20
    for t in (few, many):                                    # every loss is measured on the same sequences
        assert t.eval_batches * t.batch_size == max(planner.VALIDATED, t.batch_size)


def test_the_command_plans_and_says_how_to_train(tmp_path, capsys, monkeypatch):
    """Small runs made up: the plan is to follow the law that they follow."""
    text = tmp_path / "text.txt"
    text.write_text("the hen says cluck and the cow says moo\n" * 500)
    monkeypatch.setattr(planner, "flops_per_second", lambda c, t: 1e10)

    def made_up(c, tokens, shards, backend, seed, factor, say):
        size, tokens = planner.count_parameters(c), max(1000, tokens)
        loss = LAW(size, worth(tokens, shards.train.tokens)) + abs(factor - 2)
        return Run(size, int(tokens), loss, tokens / 1000, shards.train.tokens)
    monkeypatch.setattr(planner, "small_run", made_up)
    assert main(["plan", "--hours", "1", "--data", str(text), "--out", str(tmp_path / "run"), "--vocab-size", "270",
                 "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    fresh = worth(found["tokens"], round(found["tokens"] / found["passes"]))
    assert found["predicted_loss"] == pytest.approx(LAW(found["parameters"], fresh), rel=0.02)
    assert found["train"]["lr"] == settings(GPTConfig(**found["model"]), found["tokens"], "auto", 0, 2.0).lr
    assert f"--set n_layer={found['model']['n_layer']}" in said.err and "minillm train --data" in said.err
    assert "more than 4 say little new" in said.err


def test_a_real_plan_of_seconds(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Document {i} says that {i} times {i} is {i * i}.\n" for i in range(2000)))
    assert main(["plan", "--hours", "0.001", "--data", str(text), "--out", str(tmp_path / "run"), "--vocab-size", "270"
                 ]) == 0
    said = capsys.readouterr().out
    assert said.count("small run") == 7 and "predicted   validation loss" in said
