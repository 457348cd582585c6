"""Distillation: the loss against autograd, a whole student's gradient, and students that come to agree."""
import numpy as np
import pytest

from minillm.config import GPTConfig, TrainConfig
from minillm.gradcheck import check_model
from minillm.kernels.select import OPS, Dims, functions, select
from minillm.models.gpt2 import GPT
from minillm.ops import cross_entropy_forward, distillation_loss_backward, distillation_loss_forward
from minillm.posttrain.distill import distill_step, distillation_grads

TEACHER = GPTConfig(n_layer=2, n_head=2, n_embd=12, block_size=8, vocab_size=23)
STUDENT = GPTConfig(n_layer=1, n_head=1, n_embd=6, block_size=8, vocab_size=23, dropout=0.1)


def rough(config, seed, size=0.3, ops="numpy", dtype="float64"):
    model = GPT(config, seed, dtype=dtype, ops=select(ops))
    model.params.flat[:] += size * np.random.default_rng(seed).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("temperature, weight", [(2.0, 0.7), (1.0, 0.9), (0.5, 1.0), (4.0, 0.0)])
def test_the_loss_equals_autograds_in_float64(temperature, weight):
    pytest.importorskip("torch")
    from benchmarks import oracle_torch
    spec = OPS["distillation_loss"]
    args = spec.sample(np.random.default_rng(5), "float64", Dims(B=4, T=20, V=31)) | {
        "temperature": temperature, "weight": weight}
    dout = np.random.default_rng(6).standard_normal(80)
    theirs = oracle_torch.candidate(spec, args, dout, 1).results()
    forward, backward = (getattr(select("numpy"), name) for name in functions(spec))
    out, cache = forward(**args)
    assert np.abs(out - theirs["out"]).max() < 1e-6
    assert np.abs(backward(dout, cache) - theirs["dlogits"]).max() < 1e-6


def test_its_ends_are_cross_entropy_and_nothing():
    """Weight 0 is cross-entropy; weight 1 with the student's own logits is 0, and so is its gradient."""
    args = OPS["distillation_loss"].sample(np.random.default_rng(1), "float64", Dims(V=7))
    args |= {"weight": 0.0}
    expected, _ = cross_entropy_forward(args["logits"], args["targets"])
    assert np.abs(distillation_loss_forward(**args)[0] - expected).max() < 1e-14
    losses, cache = distillation_loss_forward(**args | {"weight": 1.0, "teacher": args["logits"]})
    assert np.abs(losses).max() < 1e-14
    assert np.abs(distillation_loss_backward(np.ones_like(losses), cache)).max() < 1e-14


def test_temperature_keeps_the_size_of_the_gradient():
    """That is what T^2 is for: at high T the gradient no longer changes with it (Hinton et al., section 2.1)."""
    args = OPS["distillation_loss"].sample(np.random.default_rng(2), "float64", Dims(V=9)) | {"weight": 1.0}

    def gradient(temperature):
        losses, cache = distillation_loss_forward(**args | {"temperature": temperature})
        return distillation_loss_backward(np.ones_like(losses), cache)
    assert np.abs(gradient(1000.0) - gradient(2000.0)).max() < 2e-3 * np.abs(gradient(1000.0)).max()


def test_gradient_of_a_whole_student():
    """Every tensor, with dropout on and two targets ignored; B*T = 264 rows are two chunks of the head."""
    rng = np.random.default_rng(0)
    teacher, student = rough(TEACHER, 1), rough(STUDENT, 2, 0.1)
    tokens, targets = rng.integers(0, 23, (2, 33, 8))
    targets[0, 3] = targets[5, 7] = -1
    count, key = int((targets != -1).sum()), (0, 1, 0)

    def loss_and_grads(params):
        model, grads = GPT(STUDENT, ops=student.ops, params=params), student.params.zeros_like()
        return distillation_grads(model, teacher, tokens, targets, 2.0, 0.7, key, grads, count), grads

    _, grads = loss_and_grads(student.params)
    rows = check_model(lambda params: loss_and_grads(params)[0], grads, student.params, samples=3, directions=2)
    assert all(row.passed for row in rows), [str(row) for row in rows if not row.passed]


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_student_comes_to_agree_with_its_teacher(backend):
    """On random tokens there is nothing to learn but the teacher: KL falls to a third."""
    teacher = rough(TEACHER, 3, ops=backend, dtype="float32")
    config = TrainConfig(steps=60, batch_size=16, lr=1e-2, warmup=5, weight_decay=0.0)
    data = RandomTokens()
    first, last = (train_for(steps, teacher, data, config, backend)[-1] for steps in (1, 60))
    assert last < first / 3


class RandomTokens:
    def batch(self, step, micro=0):
        return np.random.default_rng((step, micro)).integers(0, 23, (2, 16, 8))


def train_for(steps, teacher, data, config, backend):
    from minillm.train.optim import AdamW
    student = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=23), 5, ops=select(backend))
    optimizer, step = AdamW(student.params, ops=student.ops), distill_step(teacher, 1.0, 1.0)
    return [step(student, optimizer, data, config, {"step": i})["train_loss"] for i in range(steps)]
