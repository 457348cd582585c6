"""minillm's side of the whole-model benchmarks: the very functions that `minillm train` and `generate` call."""
import numpy as np

from minillm.config import GPTConfig, TrainConfig
from minillm.model import GPT
from minillm.optim import AdamW
from minillm.params import Params, gpt_shapes
from minillm.registry import select
from minillm.train import one_step


def model_of(job):
    """The model with the job's weights, read straight into its buffer."""
    config = GPTConfig(**job["config"])
    params = Params(gpt_shapes(config))
    with open(job["weights"], "rb") as file:
        file.readinto(memoryview(params.flat).cast("B"))
    return GPT(config, ops=select(job["backend"]), params=params)


def step(job):
    """() -> loss of one training step on the job's batch: forward, backward, clip, AdamW."""
    model, (tokens, targets) = model_of(job), np.array(job["batch"])
    lr = job["lr"]
    config = TrainConfig(steps=10 ** 6, batch_size=len(tokens), lr=lr, min_lr=lr, warmup=0, clip=job["clip"],
                         weight_decay=job["weight_decay"])
    optimizer = AdamW(model.params, lr, (config.beta1, config.beta2), config.eps, config.weight_decay, model.ops)
    state = {"step": 0}

    class Data:
        def batch(self, step, micro):
            return tokens, targets

    return lambda: one_step(model, optimizer, Data(), config, state)["train_loss"]


def decode(job):
    """() -> the first logits of one more token, after the job's context."""
    model, tokens = model_of(job), np.array(job["tokens"])
    cache = model.new_cache(len(tokens))
    model.decode(tokens[:, :-1], cache)
    context = cache.length

    def run():
        cache.truncate(context)
        return model.decode(tokens[:, -1:], cache)[0, 0, :64].tolist()

    return run
