"""Post-training of a GPT-2 whose head is a matrix of its own: distillation's gradients, rows for new marks."""
import numpy as np
from small_models import TOK

from minillm import GPT, GPTConfig
from minillm.posttrain.distill import distillation_grads
from minillm.posttrain.finetune import with_marks

V = TOK.vocab_size
STUDENT = GPT(GPTConfig(1, 2, 8, 8, V, tied=False, activation="gelu"), 0, np.float64)
TEACHER = GPT(GPTConfig(1, 2, 12, 8, V, tied=False, n_inner=20), 1, np.float64)
TOKENS = np.random.default_rng(0).integers(0, V, (2, 8))


def test_the_gradients_of_distillation_are_finite_differences():
    STUDENT.params.flat[:] += 0.2 * np.random.default_rng(3).standard_normal(STUDENT.params.flat.size)

    def loss(grads):
        return distillation_grads(STUDENT, TEACHER, TOKENS[:, :-1], TOKENS[:, 1:], 2.0, 0.7, None, grads, 14)
    grads, step = STUDENT.params.zeros_like(), 1e-6
    loss(grads)
    for name in ("lm_head.weight", "wte.weight"):
        row, sides = int(TOKENS[0, 1]), []
        for sign in (1, -1):
            STUDENT.params[name][row, 3] += sign * step
            sides.append(loss(STUDENT.params.zeros_like()))
            STUDENT.params[name][row, 3] -= sign * step
        assert np.isclose((sides[0] - sides[1]) / (2 * step), grads[name][row, 3], rtol=1e-6), name


def test_marks_get_rows_in_both_matrices():
    tokenizer, model = with_marks(TOK, STUDENT)
    assert model.params["wte.weight"].shape == model.params["lm_head.weight"].shape == (tokenizer.vocab_size, 8)
    assert model.params["lm_head.weight"][V:].any() and not model.config.tied
