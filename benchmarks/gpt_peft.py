"""PEFT's side of the benchmark of adapters: transformers' GPT-2 with LoRA on its linear layers, as PEFT's users run it.

bfloat16 is autocast, the optimizer the fused AdamW. It does not import minillm.
"""
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model

from .gpt_torch import optimizer_for
from .gpt_transformers import model_of

LAYERS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def adapted(job):
    """The model with the job's weights and adapters; only these learn."""
    base = model_of(job | {"dtype": "float32"})
    config = LoraConfig(r=job["rank"], lora_alpha=job["alpha"], lora_dropout=0.0, target_modules=LAYERS,
                        fan_in_fan_out=True)
    model = get_peft_model(base, config)
    flat, start = torch.from_numpy(np.fromfile(job["adapters"], np.float32)), 0
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, shape in job["adapter_shapes"]:                # h.0.attn.c_attn.a (in, r); theirs is (r, in)
            layer, size = name[:-2], int(np.prod(shape))
            letter = name[-1].upper()
            own[f"base_model.model.transformer.{layer}.lora_{letter}.default.weight"].copy_(
                flat[start:start + size].view(shape).T)
            start += size
    return model


def logits_of(model, job, tokens):
    low = torch.autocast("cpu", dtype=torch.bfloat16) if job["dtype"] == "bfloat16" else nullcontext()
    with low:
        return model(tokens, use_cache=False).logits.float()


def stepper(model, job, loss_of):
    """() -> loss of one step: forward, backward, clip, AdamW."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_for(learned, job)

    def run():
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, job["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def lora(job):
    """() -> loss of one step of language modelling on the job's tokens."""
    model, tokens = adapted(job), torch.tensor(job["tokens"])

    def loss_of():
        logits = logits_of(model, job, tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return stepper(model, job, loss_of)


def dpo(job):
    """() -> loss of one step of DPO: even rows of the job's tokens are chosen answers, odd ones rejected, each from its
    middle on."""
    model, tokens = adapted(job), torch.tensor(job["tokens"])

    def logps():
        logits = logits_of(model, job, tokens[:, :-1])
        each = -F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        return each.view(len(tokens), -1)[:, tokens.shape[1] // 2 - 1:].sum(1).view(-1, 2)

    with torch.no_grad():
        reference = logps()

    def loss_of():
        gained = logps() - reference
        return -F.logsigmoid(job["beta"] * (gained[:, 0] - gained[:, 1])).mean()

    return stepper(model, job, loss_of)
