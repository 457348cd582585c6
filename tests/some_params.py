"""Parameters of a tiny GPT, and a training state of them, for the tests of files."""
import numpy as np

from minillm.config import GPTConfig
from minillm.models.params import Params, gpt_shapes
from minillm.models.pretrained import write_model
from minillm.train.checkpoint import save_training

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=5, vocab_size=11, dropout=0.25, layer_norm_epsilon=1e-6)


def random_params(config=CONFIG, seed=0, dtype=np.float32):
    params = Params(gpt_shapes(config), dtype)
    params.flat[:] = np.random.default_rng(seed).standard_normal(params.flat.size)
    return params


def save_run(directory, step=7, seed=0):
    params = random_params(seed=seed)
    write_model(directory, CONFIG, params)
    save_training(directory, random_params(seed=seed + 1), random_params(seed=seed + 2),
                  {"step": step, "best": float("inf"), "lr": 0.1 + 0.2, "nested": {"betas": [0.9, 0.95]}, "no": None})
