"""The training step as a benchmark: candidates must agree on the losses before they are timed."""
import numpy as np
import pytest
from benching import quick, run_json  # noqa: F401  (quick is a fixture of every test)

from benchmarks import step, workers
from minillm.kernels import select as registry


def test_step_on_a_tiny_model(tmp_path):
    code, document = run_json(tmp_path, "step", "--size", "tiny", "--batch", "2", "--tokens", "8", "--only", "minillm")
    (row,) = document["rows"]
    assert code == 0 and row["candidate"] == "minillm" and row["dims"] == "tiny B=2 T=8" and row["x_minillm"] == 1
    assert row["samples"] == 5 and row["peak_rss_mb"] > 10
    assert row["tokens_per_second"] == pytest.approx(16e3 / row["median_ms"])
    assert row["losses"][2] < row["losses"][0] == pytest.approx(np.log(257), rel=0.02)


@pytest.mark.skipif("cpu/bf16" not in registry.choices("linear"), reason="kernels are not built")
def test_steps_with_and_without_the_copy_of_weights_race(tmp_path):
    """The one with it takes part only where it is named; both compute the same."""
    names = ["minillm bf16", "minillm bf16 (copy)"]
    code, document = run_json(tmp_path, "step", "--size", "tiny", "--batch", "2", "--tokens", "8", "--only",
                              ",".join(names))
    one, other = document["rows"]
    assert code == 0 and [one["candidate"], other["candidate"]] == names and one["losses"] == other["losses"]
    assert names[1] not in [candidate["name"] for candidate in step.chosen(step.candidates(), None)]


def test_a_wrong_step_and_a_broken_worker_are_caught():
    config, B, T = step.sizes("tiny", 1, 4)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, B, T)).tolist()
    entrants = [step.entrant("good", "gpt_minillm", backend="numpy"),
                step.entrant("other rate", "gpt_minillm", backend="numpy", lr=3e-2),
                step.entrant("missing", "gpt_nothing"), step.entrant("optional", "gpt_nothing", compile=True)]
    with step.job_for(config, 1, batch=tokens, lr=1e-4, clip=1.0, weight_decay=0.1) as job:
        results, wrong, skipped = workers.race(entrants, "step", job, step.same_loss, together=2)
    assert [result["candidate"] for result in results] == ["good"]
    assert set(wrong) == {"other rate", "missing"} and set(skipped) == {"optional"}
    assert wrong["other rate"][0].startswith("loss of step 3") or wrong["other rate"][0].startswith("loss of step 2")
    assert "gpt_nothing" in wrong["missing"][0]


def test_groups_hold_the_first_candidate():
    assert workers.split(list("abcd"), 3) == [["a", "b", "c"], ["a", "d"]]
    assert workers.split(["a"], 2) == [["a"]]
    assert workers.fitting(4, 20) == 4 and workers.fitting(4, 1) == 2


def test_step_flops_of_gpt2():
    config, B, T = step.sizes("124M", 4, 256)
    assert step_share(config, B, T) == pytest.approx(6 * 124e6 * 1024, rel=0.03)


def step_share(config, B, T):
    return step.step_flops(config, B, T) - 12 * 7 * B * T ** 2 * 768
