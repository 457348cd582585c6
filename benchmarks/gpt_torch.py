"""PyTorch's side of the whole-model benchmarks: GPT-2 in PyTorch's own functions, as its users write it.

Linear weights are kept (out, in), PyTorch's layout; attention is scaled_dot_product_attention; the optimizer is the
fused AdamW; bfloat16 is autocast. It does not import minillm.
"""
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F


def parameters_of(job):
    """{name: tensor} of the job's weights; matrices of linear layers are transposed to (out, in)."""
    torch.set_num_threads(job["threads"])
    flat, start, parameters = np.fromfile(job["weights"], np.float32), 0, {}
    for name, shape in job["shapes"]:
        size = int(np.prod(shape))
        value = torch.from_numpy(flat[start:start + size]).view(shape)
        parameters[name] = (value.T if ".c_" in name and len(shape) == 2 else value).clone(
            memory_format=torch.contiguous_format)
        start += size
    return parameters


def trainable(arrays):
    """{name: tensor} of NumPy arrays by name, copied, that ask for gradients; matrices transposed as above."""
    return {name: torch.tensor(array.T if ".c_" in name and array.ndim == 2 else array).contiguous().requires_grad_()
            for name, array in arrays.items()}


def hidden(p, config, tokens, attend, start=0):
    """tokens (B, T) at positions start... -> residual stream (B, T, C). attend(i, q, k, v) -> (B, NH, T, HS)."""
    B, T = tokens.shape
    C, NH, eps = config["n_embd"], config["n_head"], config["layer_norm_epsilon"]
    x = F.embedding(tokens, p["wte.weight"]) + p["wpe.weight"][start:start + T]
    for i in range(config["n_layer"]):
        h = f"h.{i}."
        a = F.layer_norm(x, (C,), p[h + "ln_1.weight"], p[h + "ln_1.bias"], eps)
        qkv = F.linear(a, p[h + "attn.c_attn.weight"], p[h + "attn.c_attn.bias"])
        q, k, v = (part.view(B, T, NH, C // NH).transpose(1, 2) for part in qkv.split(C, dim=2))
        a = attend(i, q, k, v).transpose(1, 2).reshape(B, T, C)
        x = x + F.linear(a, p[h + "attn.c_proj.weight"], p[h + "attn.c_proj.bias"])
        m = F.layer_norm(x, (C,), p[h + "ln_2.weight"], p[h + "ln_2.bias"], eps)
        m = F.gelu(F.linear(m, p[h + "mlp.c_fc.weight"], p[h + "mlp.c_fc.bias"]), approximate="tanh")
        x = x + F.linear(m, p[h + "mlp.c_proj.weight"], p[h + "mlp.c_proj.bias"])
    return F.layer_norm(x, (C,), p["ln_f.weight"], p["ln_f.bias"], eps)


def causal(layer, q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def loss_of(p, config, tokens, targets):
    """Mean cross-entropy; the head is the token embedding again."""
    logits = F.linear(hidden(p, config, tokens, causal), p["wte.weight"])
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-1)


def step(job):
    """() -> loss of one training step on the job's batch: forward, backward, clip, AdamW."""
    p = {name: value.requires_grad_() for name, value in parameters_of(job).items()}
    tokens, targets = torch.tensor(job["batch"])
    optimizer = optimizer_for(p.values(), job)
    function = torch.compile(loss_of) if job["compile"] else loss_of
    low = torch.autocast("cpu", dtype=torch.bfloat16) if job["dtype"] == "bfloat16" else nullcontext()

    def run():
        with low:
            loss = function(p, job["config"], tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), job["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def optimizer_for(parameters, job):
    """Fused AdamW, with decay on matrices only."""
    parameters = list(parameters)
    groups = [{"params": [x for x in parameters if x.ndim >= 2], "weight_decay": job["weight_decay"]},
              {"params": [x for x in parameters if x.ndim < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=job["lr"], betas=(0.9, 0.95), eps=1e-8, fused=True)
