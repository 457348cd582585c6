"""transformers' side of the decoding benchmark: GPT2LMHeadModel with its own cache, as its users run it."""
import numpy as np
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel


def model_of(job):
    """The model with the job's weights, in the job's dtype."""
    torch.set_num_threads(job["threads"])
    c = job["config"]
    model = GPT2LMHeadModel(GPT2Config(n_layer=c["n_layer"], n_head=c["n_head"], n_embd=c["n_embd"],
                                       n_positions=c["block_size"], vocab_size=c["vocab_size"]))
    flat, start = torch.from_numpy(np.fromfile(job["weights"], np.float32)), 0
    own = model.transformer.state_dict()
    with torch.no_grad():
        for name, shape in job["shapes"]:
            size = int(np.prod(shape))
            own[name].copy_(flat[start:start + size].view(shape))
            start += size
    return model.to(getattr(torch, job["dtype"])).eval()


def decode(job):
    """() -> first logits of each of the job's steps, one token a sequence each, after its context."""
    model, tokens, steps = model_of(job), torch.tensor(job["tokens"]), job["steps"]
    context, cache = tokens.shape[1] - steps, DynamicCache()

    @torch.inference_mode()
    def run():
        logits = [model(tokens[:, t:t + 1], past_key_values=cache, use_cache=True).logits[0, 0, :64]
                  for t in range(context, context + steps)]
        cache.crop(-steps)
        return torch.stack(logits).tolist()

    with torch.inference_mode():
        model(tokens[:, :context], past_key_values=cache, use_cache=True, logits_to_keep=1)
    return run


def prefill(job):
    """() -> first logits after the job's prompt, read at once into a new cache."""
    model, tokens = model_of(job), torch.tensor(job["tokens"])

    @torch.inference_mode()
    def run():
        out = model(tokens, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
        return [out.logits[0, -1, :64].tolist()]

    return run
