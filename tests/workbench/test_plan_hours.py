"""`minillm plan --hours`: the law through points of one small run, what it leaves out, settings, the command."""
import json

import numpy as np
import pytest

from minillm.__main__ import main
from minillm.config import GPTConfig
from minillm.data.shards.format import open_shards
from minillm.workbench import plan_hours as planner
from minillm.workbench.plan_hours import (
    POINTS,
    Fit,
    Run,
    Trunk,
    best_rate,
    fit,
    loss_of_pairs,
    on_plateau,
    past,
    settings,
    stated_error,
    worth,
)

LAW = Fit(1.7, 410.0, 0.3)
EARLY = 100.0                       # a loss of pairs that any run is better than


def runs(noise=0.0, law=LAW):
    rng = np.random.default_rng(0)
    return [Run(int(p * 10 ** 8), law(p * 10 ** 8) * (1 + noise * rng.standard_normal())) for p in POINTS]


def test_a_law_is_found_again():
    assert fit(runs())(2 * 10 ** 8) == pytest.approx(LAW(2 * 10 ** 8), rel=0.004)
    assert stated_error(runs(), 2 * 10 ** 8, EARLY) == planner.LEAST_ERROR


def test_noise_is_stated():
    assert stated_error(runs(0.02), 2 * 10 ** 8, EARLY) > 1.5 * planner.LEAST_ERROR
    spoilt = runs()
    spoilt[-1] = spoilt[-1]._replace(loss=1.5 * spoilt[-1].loss)
    assert stated_error(spoilt, 2 * 10 ** 8, EARLY) > 0.3
    assert stated_error(spoilt, 8 * 10 ** 8, EARLY) > 2 * stated_error(spoilt, 2 * 10 ** 8, EARLY)


def test_what_was_measured_of_real_runs():
    """Points of real runs and what came at twice their length (benchmarks/LOG.md): the law holds but on the plateau
    where a model knows pairs of tokens, where little is promised."""
    smooth = [Run(*point) for point in [(256000, 4.6026), (512000, 4.1961), (723968, 4.0203), (1024000, 3.8694),
                                        (1447936, 3.7346), (2048000, 3.6495)]]
    assert fit(smooth)(4096000) == pytest.approx(3.4310, rel=0.02)
    assert stated_error(smooth, 4096000, 4.084) == stated_error(smooth[:4], 2048000, 4.084) == planner.LEAST_ERROR
    rough = [Run(*point) for point in [(179712, 0.8134), (307712, 0.7502), (435712, 0.7184), (615936, 0.7001),
                                       (870912, 0.6374), (1231872, 0.6285)]]
    assert stated_error(rough, 2265600, 1.531) > abs(fit(rough)(2265600) / 0.6226 - 1) > planner.LEAST_ERROR
    plateau = [Run(*point) for point in [(128000, 4.2769), (256000, 3.9060), (362496, 3.8334), (512000, 3.7438),
                                         (723968, 3.6732), (1024000, 3.5323)]]
    assert on_plateau(plateau, 3.642) and not on_plateau(smooth, 4.084)
    assert stated_error(plateau, 2048000, 3.642) >= abs(fit(plateau)(2048000) / 2.9794 - 1)


def test_points_of_the_plateau_are_left_out():
    step = [Run(d, 4.2) for d in (10, 20)] + [Run(d, LAW(10 ** 6 * d)) for d in (30, 40, 60, 80)]
    pairs = 4.2 / planner.PAST_PAIRS
    assert past(step, pairs) == step[2:] and past(step[:-1], pairs) == step[:-1]


def test_the_loss_of_pairs(shards):
    """Each token of the text decides the next one, but for where documents meet: pairs cost little, single ones not."""
    assert 0 < loss_of_pairs(shards) < 0.5


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    from minillm.data.shards.prepare import prepare
    folder = tmp_path_factory.mktemp("shards")
    prepare(lambda: [(f"text {i}", "abcdefghij" * 40) for i in range(60)], folder, vocab_size=257, source="letters")
    return open_shards(folder / "data")


def test_a_branch_is_the_run_of_its_length(shards):
    """The trunk's copy that decays ends where a run with that schedule does, and the trunk goes on as if it had not."""
    c = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=shards.vocab_size)
    t = settings(c, 40 * 512, "auto", 0)
    trunk, alone = Trunk(c, t, shards), Trunk(c, t, shards)
    trunk.branch(5)
    found = trunk.branch(10)
    assert found == alone.branch(10) and found.tokens == 10 * 512 and found.unique == shards.train.tokens
    assert np.array_equal(trunk.model.params.flat, alone.model.params.flat) and trunk.step == 8
    assert trunk.branch(15).loss < found.loss


def test_the_first_rate_unless_another_is_clearly_better(shards, monkeypatch):
    c = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=shards.vocab_size)
    t = settings(c, 40 * 512, "auto", 0)
    for losses, best in (((3.0, 2.99, 2.99), 2), ((3.0, 2.5, 2.6), 1), ((3.0, 2.9, 2.5), 4)):
        found = iter(losses)
        monkeypatch.setattr(Trunk, "branch", lambda self, steps, found=found: Run(steps, next(found)))
        trunk, run = best_rate(c, t, 10, shards, lambda text: None)
        assert trunk.config.lr == pytest.approx(best * t.lr) and run.loss == losses[[2, 1, 4].index(best)]


def test_a_rate_that_diverges_is_passed_over(shards, monkeypatch):
    c = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=shards.vocab_size)
    t, said = settings(c, 40 * 512, "auto", 0), []

    def branch(self, steps):
        if self.config.lr > t.lr or everywhere:
            raise FloatingPointError("diverged")
        return Run(steps, 3.0)
    monkeypatch.setattr(Trunk, "branch", branch)
    everywhere = False
    assert best_rate(c, t, 10, shards, said.append)[0].config.lr == t.lr and sum("diverged" in s for s in said) == 2
    everywhere = True
    with pytest.raises(ValueError, match="--data: training on it diverges"):
        best_rate(c, t, 10, shards, said.append)


def test_tokens_seen_again_are_worth_less():
    assert worth(500, 0) == 500 and worth(500, 1000) == 500
    assert 3900 > worth(4000, 1000) > 3700                    # four passes are almost as good as fresh text
    assert worth(10 ** 9, 1000) == pytest.approx(1000 * (1 + planner.REPEATED))


def test_nothing_is_below_zero():
    found = fit([Run(10 ** 6, 3.0), Run(10 ** 7, 3.5), Run(2 * 10 ** 7, 3.6)])
    assert min(found.E, found.B) >= 0


def test_settings_grow_with_the_tokens():
    c = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, vocab_size=500)
    few, many = settings(c, 10 ** 4, "auto", 0), settings(c, 10 ** 9, "auto", 0, factor=2.0)
    assert few.batch_size == 4 and many.batch_size == 1024 and few.schedule == "wsd"
    assert few.steps * few.batch_size * 128 == pytest.approx(10 ** 4, rel=0.1)
    assert many.lr == pytest.approx(2 * few.lr, rel=0.01) and many.warmup == many.steps // 100
    for t in (few, many):                                    # every loss is measured on the same sequences
        assert t.eval_batches * t.batch_size == max(planner.VALIDATED, t.batch_size)


def test_the_command_plans_and_says_how_to_train(tmp_path, capsys, monkeypatch):
    """Losses made up: the plan is to follow the law that they follow."""
    text = tmp_path / "text.txt"
    text.write_text("the hen says cluck and the cow says moo\n" * 500)
    monkeypatch.setattr(planner, "flops_per_second", lambda c, t: 1e10)
    monkeypatch.setattr(planner, "loss_of_pairs", lambda shards: EARLY)

    def made_up(self, steps):
        tokens = steps * planner.step_tokens(self.model.config, self.config)
        loss = LAW(worth(tokens, self.unique)) * (1 + abs(self.config.lr / settings(
            self.model.config, 1, "auto", 0).lr - 2))
        return Run(tokens, loss, self.unique)
    monkeypatch.setattr(Trunk, "branch", made_up)
    assert main(["plan", "--hours", "0.1", "--data", str(text), "--out", str(tmp_path / "run"), "--vocab-size", "270",
                 "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["predicted_loss"] == pytest.approx(LAW(worth(found["tokens"], found["runs"][0]["unique"])), rel=0.02)
    assert found["train"]["lr"] == pytest.approx(2 * settings(GPTConfig(**found["model"]), 1, "auto", 0).lr)
    assert f"--set n_layer={found['model']['n_layer']}" in said.err and "minillm train --data" in said.err
    assert "--set schedule=wsd --set decay=0.2" in said.err and "more than 4 say little new" in said.err


def test_a_real_plan_of_seconds(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Document {i} says that {i} times {i} is {i * i}.\n" for i in range(2000)))
    assert main(["plan", "--hours", "0.001", "--data", str(text), "--out", str(tmp_path / "run"), "--vocab-size", "270"
                 ]) == 0
    said = capsys.readouterr().out
    assert 6 <= said.count("small run   ") <= 8 and "predicted   validation loss" in said
