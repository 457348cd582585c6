"""minillm's side of the whole-model benchmarks: the very functions that `minillm train` and `generate` call."""
import numpy as np

from minillm.config import GPTConfig, TrainConfig
from minillm.data.sources.conversations import Preference
from minillm.kernels.select import select
from minillm.models.adapted import LoraModel
from minillm.models.gpt2 import GPT
from minillm.models.packing import Batch
from minillm.models.params import Params, gpt_shapes
from minillm.models.quantized import in_panels, quantize
from minillm.posttrain.dpo import PreferenceData, dpo_step
from minillm.tokenizer.chat_template import Example
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
    return stepper(model_of(job), job, one_step, Always(*np.array(job["batch"])))


class Always:
    """Data of which every batch is the same."""

    def __init__(self, tokens, targets):
        self.tokens, self.targets = tokens, targets

    def batch(self, step, micro):
        return Batch(self.tokens, self.targets)


def stepper(model, job, step, data):
    """() -> loss of one step, a function for `train`, always on the same data."""
    lr = job["lr"]
    config = TrainConfig(steps=10 ** 6, lr=lr, min_lr=lr, warmup=0, clip=job["clip"], weight_decay=job["weight_decay"])
    optimizer = AdamW(model.params, lr, (config.beta1, config.beta2), config.eps, config.weight_decay, model.ops)
    if job.get("copy"):
        optimizer.keep_bits()
    return lambda: step(model, optimizer, data, config, {"step": 0})["train_loss"]


def lora(job):
    """() -> loss of one step of language modelling on the job's tokens, of adapters or of the whole model."""
    tokens = np.array(job["tokens"])
    return stepper(learner(job), job, one_step, Always(tokens[:, :-1].copy(), tokens[:, 1:].copy()))


def dpo(job):
    """() -> loss of one step of DPO: even rows of the job's tokens are chosen answers, odd ones rejected, each from its
    middle on."""
    examples = [Example(row, [place >= len(row) // 2 for place in range(len(row))]) for row in job["tokens"]]
    pairs = [Preference(*examples[i:i + 2]) for i in range(0, len(examples), 2)]
    model = learner(job)
    data = PreferenceData([*pairs, *pairs], model.config.block_size, len(pairs), share=0.5)
    data.preferences = pairs
    data.refer_to(model)
    return stepper(model, job, dpo_step(job["beta"]), data)


def learner(job):
    """What learns: the model with the job's adapters, or the model itself."""
    model = model_of(job)
    if job["whole"]:
        return model
    adapter = LoraModel(model, job["rank"], job["alpha"])
    adapter.params.flat[:] = np.fromfile(job["adapters"], np.float32)
    return adapter


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
    return in_panels(quantize(model_of(job), job["dtype"]))
