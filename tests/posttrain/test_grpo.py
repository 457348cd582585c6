"""Group-relative policy optimization: advantages, sampled groups, the policy gradient, tasks with checkable answers."""
import numpy as np
import pytest
from chats import CHAT, TOK, small_model
from tolerances import assert_close

from minillm import AdamW
from minillm.config import TrainConfig
from minillm.posttrain import grpo
from minillm.posttrain.tasks import FORM, TASKS, Addition


def test_advantages_are_relative_to_the_group():
    found = grpo.advantages_of(np.array([[1.0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]]))
    half = 3 ** 0.5 / 2                             # the sample deviation of four rewards of 0 and 1 is 1 / sqrt(3)
    assert found[0] == pytest.approx([half, -half, -half, half], rel=1e-3) and (found[1] == 0).all()


def test_sampling_a_group_stops_and_repeats():
    model = small_model(TOK)
    answers = grpo.sample_group(model, [1, 2], 5, 6, stop=TOK.eot_token, key=(0, 1))
    assert answers == grpo.sample_group(model, [1, 2], 5, 6, stop=TOK.eot_token, key=(0, 1))
    assert answers != grpo.sample_group(model, [1, 2], 5, 6, stop=TOK.eot_token, key=(0, 2))
    stop = answers[0][1]
    for answer in grpo.sample_group(model, [1, 2], 5, 6, stop=stop, key=(0, 1)):
        assert 1 <= len(answer) <= 6 and stop not in answer[:-1]


def test_packed_answers_line_up():
    tokens, targets, lengths = grpo.packed_answers([[1, 2], [3]], [[4, 5], [6]])
    assert tokens.tolist() == [[1, 2, 4, 3]] and targets.tolist() == [[-1, 4, 5, 6]] and lengths == [3, 1]


def test_grpo_gradient_is_the_policy_gradient_at_the_start():
    """With the ratio at 1 and beta 0 the gradient is that of -mean(A logp)."""
    model, batch = small_model(TOK), grpo.packed_answers([[1, 2], [3]], [[4, 5], [6, 7]])
    weights = np.array([1.0, 1.0, -0.5, -0.5])
    old = -model.losses(batch[0], batch[1], lengths=batch[2])[0]
    grads = model.params.zeros_like()
    grpo.grpo_gradient(model, grads, batch, old, old, weights, 0.2, 0.0, 4)
    losses, cache = model.losses(batch[0], batch[1], lengths=batch[2])
    slopes = np.zeros(5)
    slopes[batch[1][0] != -1] = weights / 4
    wanted = model.backward(slopes, cache)
    for name in grads:
        assert_close(name, grads[name], wanted[name], "same model")


def test_micro_batches_of_prompts_make_the_step_of_the_whole():
    task, rows, weights = Addition(), [], []
    for accumulate in (1, 3):
        model = small_model(TOK)
        optimizer = AdamW(model.params, ops=model.ops)
        data = grpo.RewardData(task, TOK, 4, 4, 3)
        step = grpo.grpo_step(small_model(TOK), updates=2)
        rows.append(step(model, optimizer, data, TrainConfig(accumulate=accumulate, warmup=0), {"step": 0}))
        weights.append(model.params)
    for name in ("train_loss", "grad_norm", "kl", "reward"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-4, abs=1e-7), name
    for name in weights[0]:
        assert_close(name, weights[0][name], weights[1][name], "same model")


def test_additions_reward():
    task = Addition()
    number = 75
    assert task.prompt(number) == "7+5=" and task.reward(number, "12") == 1 and task.reward(number, "13") == FORM
    assert task.reward(number, " 12") == task.reward(number, "٣") == task.reward(number, "") == 0
    assert not set(task.held_out) & set(task.training) and len(task.held_out) + len(task.training) == 100
    records = Addition(wrong=0.5, copies=5).records()
    right = sum(r["completion"] == task.answer(i) for i, r in zip(task.training * 5, records))
    assert 0.45 < right / (5 * len(task.training)) < 0.65
    careless = TASKS["addition-careless"]
    assert careless.records() == Addition(wrong=0.5, copies=20).records() and repr(careless) == repr(task)


@pytest.mark.parametrize("settings, words", [
    ({"prompts": 0}, "prompts must be at least 1"), ({"group": 1}, "group must be at least 2"),
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1")])
def test_rewards_that_could_teach_nothing_are_errors(settings, words):
    with pytest.raises(ValueError, match=words):
        grpo.RewardData(Addition(), CHAT, **{"prompts": 1, "group": 2, "max_new_tokens": 1, **settings})
