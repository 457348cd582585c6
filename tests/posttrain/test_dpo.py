"""Direct preference optimization: gradients of a whole model, the reference, batches."""
import numpy as np
import pytest
from chats import CHAT, SMALL, small_model, talk
from tolerances import assert_close

from minillm import TrainConfig
from minillm.data.sources import conversations
from minillm.posttrain import dpo
from minillm.tokenizer import chat_template as chat
from minillm.train.loop import train
from minillm.train.optim import AdamW


def preference_data(count=12, pairs=4, **kwargs):
    known = [conversations.Preference(*(chat.encode_messages(CHAT, talk(f"{i}?", answer))
                                        for answer in ("cluck", "a hen"))) for i in range(count)]
    return dpo.PreferenceData(known, SMALL["block_size"], pairs, **kwargs)


def mean_dpo_loss(model, data, numbers, nll_weight):
    return float(dpo.preference_losses(model, data, "train", numbers, 0.3, 0.1, nll_weight)[0].mean())


@pytest.mark.parametrize("nll_weight", [0.0, 0.7])
def test_dpo_gradient_of_a_whole_model_along_random_directions(nll_weight):
    data, model = preference_data(), small_model()
    data.refer_to(small_model(seed=1))
    losses, state = dpo.preference_losses(model, data, "train", [0, 3], 0.3, 0.1, nll_weight)
    grads = dpo.preference_backward(np.full(2, 0.5), model, state, model.params.zeros_like())
    rng, start = np.random.default_rng(0), model.params.flat.copy()
    for _ in range(4):
        direction = rng.standard_normal(start.shape) / np.sqrt(start.size)
        ends = []
        for step in (1e-5, -1e-5):
            model.params.flat[:] = start + step * direction
            ends.append(mean_dpo_loss(model, data, [0, 3], nll_weight))
        model.params.flat[:] = start
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(grads.flat @ direction), rel=1e-5, abs=1e-9)


def test_the_reference_is_where_the_loss_starts():
    data, model = preference_data(), small_model()
    data.refer_to(model)
    losses = dpo.preference_losses(model, data, "train", [0, 1], 0.1, 0.0)[0]
    assert_close("loss", losses, np.full(2, np.log(2)), "same model")
    data.refer_to(None)
    chosen, rejected = dpo.logps(model, data.preferences[:1])[0]
    free = dpo.preference_losses(model, data, "train", [0], 0.1, 0.0)[0]
    assert_close("reference-free", free, [np.log1p(np.exp(-0.1 * (chosen - rejected)))], "same model")


def test_the_chosen_answers_own_loss_is_the_mean_over_its_tokens():
    data, model = preference_data(), small_model()
    data.refer_to(model)
    pair = data.preferences[0]
    chosen, _ = dpo.logps(model, [pair])[0]
    learned = [id for id, wanted in zip(pair.chosen.ids, pair.chosen.learned) if wanted]
    with_nll, without = (dpo.preference_losses(model, data, "train", [0], 0.1, 0.0, w)[0][0] for w in (2.0, 0.0))
    assert_close("nll", with_nll - without, 2 * -chosen / len(learned), "same model")
    with pytest.raises(ValueError, match="nll_weight must be at least 0"):
        dpo.dpo_step(nll_weight=-1.0)


def test_pairs_that_do_not_fit_the_context_are_dropped_and_counted():
    long = chat.encode_messages(CHAT, talk("what is it? " * 9, "cluck"))
    pairs = preference_data().preferences
    data = dpo.PreferenceData([*pairs, conversations.Preference(long, pairs[0].rejected)], SMALL["block_size"], 4)
    assert data.dropped == 1 and len(data.preferences) + len(data.held_out) == len(pairs)


def test_dpo_learns_what_is_preferred(tmp_path):
    data, model = preference_data(), small_model(dtype=np.float32)
    data.refer_to(model)
    config = TrainConfig(steps=15, lr=3e-3, warmup=1, eval_every=5, weight_decay=0.0, log_every=5)
    state = train(model, data, config, tmp_path, step=dpo.dpo_step(), validate=dpo.validate_dpo(),
                  columns=dpo.DPO_COLUMNS)
    assert state["best"]["val_accuracy"] == 1 and state["best"]["val_loss"] < 0.5


@pytest.mark.parametrize("pairs, accumulate", [(2, 4), (1, 8)])
def test_dpo_over_small_batches_takes_the_step_of_the_big_one(pairs, accumulate):
    rows, models = [], []
    for size, parts in ((8, 1), (pairs, accumulate)):
        data, model = preference_data(pairs=size), small_model()
        data.refer_to(small_model(seed=1))
        optimizer = AdamW(model.params, lr=1e-3, ops=model.ops)
        for step in range(3):
            rows.append(dpo.dpo_step(0.3, 0.1, 0.7)(model, optimizer, data, TrainConfig(accumulate=parts, warmup=0),
                                                    {"step": step}))
        models.append(model)
    assert_close("weights", models[1].params.flat, models[0].params.flat, "same model")
    for whole, parts in zip(rows[:3], rows[3:]):
        assert whole["count"] == parts["count"] and whole["train_loss"] == pytest.approx(parts["train_loss"], rel=1e-12)


@pytest.mark.parametrize("loss", ["dpo_loss", "grpo_loss"])
def test_losses_equal_autograds_in_float64(loss):
    torch = pytest.importorskip("torch")
    from benchmarks import oracle_torch
    from minillm.kernels.select import OPS, Dims, functions, select
    spec = OPS[loss]
    args = spec.sample(np.random.default_rng(5), "float64", Dims(B=4, T=50))
    dout = np.random.default_rng(6).standard_normal(200)
    theirs = oracle_torch.candidate(spec, args, dout, 1).results()
    forward, backward = (getattr(select("numpy"), name) for name in functions(spec))
    out, cache = forward(**args)
    grads = backward(dout, cache)
    assert np.abs(out - theirs["out"]).max() < 1e-6 and torch.float64
    for name, grad in zip(spec.differentiable, grads if isinstance(grads, tuple) else (grads,)):
        assert np.abs(grad - theirs[f"d{name}"]).max() < 1e-6


def test_a_step_needs_a_pair():
    with pytest.raises(ValueError, match="pairs must be at least 1: got 0"):
        dpo.PreferenceData([], SMALL["block_size"], 0)
