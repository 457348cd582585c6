"""minillm's side of the whole-model benchmarks: the very functions that `minillm train` and `generate` call."""
import numpy as np

from minillm.config import GPTConfig, TrainConfig
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT
from minillm.models.packing import Batch
from minillm.models.params import Params, gpt_shapes
from minillm.models.quantized import quantize
from minillm.train.loop import one_step
from minillm.train.optim import AdamW


def model_of(job):
    """The model with the job's weights, read straight into its buffer."""
    config = GPTConfig(**job["config"])
    params = Params(gpt_shapes(config))
    with open(job["weights"], "rb") as file:
        file.readinto(memoryview(params.flat).cast("B"))
    return GPT(config, ops=select(job["backend"]), params=params)


def step(job):
    """() -> loss of one training step on the job's batch: forward, backward, clip, AdamW.

    copy: whether AdamW leaves the weights in bfloat16, too, as `train` lets it where that pays.
    """
    model, (tokens, targets) = model_of(job), np.array(job["batch"])
    lr = job["lr"]
    config = TrainConfig(steps=10 ** 6, batch_size=len(tokens), lr=lr, min_lr=lr, warmup=0, clip=job["clip"],
                         weight_decay=job["weight_decay"])
    optimizer = AdamW(model.params, lr, (config.beta1, config.beta2), config.eps, config.weight_decay, model.ops)
    state = {"step": 0}
    if job.get("copy"):
        optimizer.keep_bits()

    class Data:
        def batch(self, step, micro):
            return Batch(tokens, targets)

    return lambda: one_step(model, optimizer, Data(), config, state)["train_loss"]


def decode(job):
    """() -> first logits of each of the job's steps, one token a sequence each, after its context."""
    model, tokens, steps = quantized_model(job), np.array(job["tokens"]), job["steps"]
    cache, context = model.new_cache(len(tokens)), tokens.shape[1] - steps
    model.decode(tokens[:, :context], cache, last=True)

    def run():
        cache.truncate(context)
        return [model.decode(tokens[:, t:t + 1], cache)[0, 0, :64].tolist() for t in range(context, context + steps)]

    return run


def prefill(job):
    """() -> first logits after the job's prompt, read at once into a new cache."""
    model, tokens = quantized_model(job), np.array(job["tokens"])
    return lambda: [model.decode(tokens, model.new_cache(len(tokens)), last=True)[0, 0, :64].tolist()]


def quantized_model(job):
    """The model with its matrices in the job's dtype."""
    return quantize(model_of(job), job["dtype"])
