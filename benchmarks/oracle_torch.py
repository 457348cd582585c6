"""PyTorch's counterpart of each op: the same inputs, forward and backward timed apart.

The forward builds its graph, as in training; the backward is autograd on that graph, kept for the next call. Weights
are stored the way PyTorch likes them, (out, in), where ours are (in, out); gradients are turned back to be compared.
"""
import numpy as np
import torch
import torch.nn.functional as F

from .measure import Candidate, named_outs


def embedding(tokens, wte, wpe, start):
    return F.embedding(tokens, wte) + wpe[start:start + tokens.shape[1]]


def layernorm(x, weight, bias, eps):
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def gelu(x):
    return F.gelu(x, approximate="tanh")


def attention(qkv, n_head):
    B, T, C3 = qkv.shape
    q, k, v = (part.view(B, T, n_head, -1).transpose(1, 2) for part in qkv.split(C3 // 3, dim=2))  # (B, NH, T, HS)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).reshape(B, T, C3 // 3)


def attention_decode(q, k, v):
    out = F.scaled_dot_product_attention(q, k, v)       # one query, which sees every key: no mask
    return out.transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


def mlp(x, fc_weight, fc_bias, proj_weight, proj_bias):
    return F.linear(gelu(F.linear(x, fc_weight, fc_bias)), proj_weight, proj_bias)


def residual_layernorm(x, y, weight, bias, eps):
    s = x + y
    return s, layernorm(s, weight, bias, eps)


def dropout(x, p, key):
    return F.dropout(x, p)


def cross_entropy(logits, targets, ignore_index):
    return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="none")


def linear_cross_entropy(x, wte, targets, ignore_index):
    return cross_entropy(F.linear(x, wte), targets, ignore_index)


def lora_linear(x, weight, bias, a, b, scale, p, key):
    return F.linear(x, weight, bias) + scale * (F.dropout(x, p) @ a) @ b


def distillation_loss(logits, teacher, targets, temperature, weight, ignore_index):
    soft = F.kl_div(F.log_softmax(logits / temperature, -1), F.log_softmax(teacher / temperature, -1), reduction="none",
                    log_target=True).sum(-1)
    hard = cross_entropy(logits, targets, ignore_index)
    return (1 - weight) * hard + weight * temperature ** 2 * soft * (targets != ignore_index)


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing):
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)


def grpo_loss(logp, old_logp, ref_logp, advantages, clip, beta):
    ratio, back = torch.exp(logp - old_logp), ref_logp - logp
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -gain + beta * (torch.exp(back) - back - 1)


COUNTERPARTS = {"embedding": embedding, "linear": F.linear, "layernorm": layernorm, "gelu": gelu, "mlp": mlp,
                "attention": attention, "attention_decode": attention_decode, "residual_layernorm": residual_layernorm,
                "dropout": dropout, "cross_entropy": cross_entropy, "linear_cross_entropy": linear_cross_entropy,
                "distillation_loss": distillation_loss, "dpo_loss": dpo_loss, "lora_linear": lora_linear,
                "grpo_loss": grpo_loss}
RENAMED = {"linear": {"x": "input"}}                                # argument names that differ
TRANSPOSED = {"linear": ("weight",), "lora_linear": ("weight",), "mlp": ("fc_weight", "proj_weight")}
NOT_COMPARED = ("dropout", "lora_linear")                                         # another random generator, another mask


def candidate(spec, args, dout, threads):
    """PyTorch's Candidate for an op of the table, or None where it has no counterpart. args, dout: NumPy arrays (dout a
    tuple of them for an op with several outputs)."""
    torch.set_num_threads(threads)
    if spec.name == "adamw":
        return adamw(args)
    if spec.name not in COUNTERPARTS:
        return None
    function, names = COUNTERPARTS[spec.name], RENAMED.get(spec.name, {})
    tensors = {name: tensor(spec, name, value) for name, value in args.items()}
    leaves = [tensors[name] for name in spec.differentiable]
    tensors = {names.get(name, name): value for name, value in tensors.items()}
    out = function(**tensors)
    several = isinstance(out, tuple)
    dout = tuple(map(torch.from_numpy, dout)) if several else torch.from_numpy(dout)

    def forward():
        return function(**tensors)

    def backward():
        return torch.autograd.grad(out, leaves, dout, retain_graph=True)

    def results():
        grads = backward() if leaves else ()
        return named_outs(tuple(o.detach().numpy() for o in out) if several else out.detach().numpy()) | {
            f"d{name}": turned(spec, name, grad).numpy() for name, grad in zip(spec.differentiable, grads)}

    runs = {"forward": forward} | ({"backward": backward} if leaves else {})
    return Candidate("torch", runs, results, spec.name not in NOT_COMPARED)


def tensor(spec, name, value):
    """An argument for PyTorch: arrays share their memory, differentiable ones ask for a gradient."""
    if not isinstance(value, np.ndarray):
        return value
    converted = turned(spec, name, torch.from_numpy(value)).contiguous()
    return converted.requires_grad_(name in spec.differentiable)


def turned(spec, name, value):
    return value.T if name in TRANSPOSED.get(spec.name, ()) else value


def adamw(args):
    """torch.optim.AdamW(fused=True) on two parameters, the decayed half and the rest."""
    def results():
        optimizer = optimizer_for(args)
        optimizer.step()
        parameters = [group["params"][0] for group in optimizer.param_groups]
        state = [optimizer.state[parameter] for parameter in parameters]
        found = {"w": parameters, "m": [s["exp_avg"] for s in state], "v": [s["exp_avg_sq"] for s in state]}
        return {name: np.concatenate([part.detach().numpy() for part in parts]) for name, parts in found.items()}

    optimizer = optimizer_for(args)
    updated = [group["params"][0] for group in optimizer.param_groups]

    def update():
        optimizer.step()
        return updated

    return Candidate("torch", {"update": update}, results)


def optimizer_for(args):
    """An optimizer whose state is that of `args`. The gradient is scaled before: clipping is no part of its pass."""
    halves = [(slice(0, args["n_decayed"]), args["weight_decay"]), (slice(args["n_decayed"], None), 0.0)]
    groups, states = [], []
    for part, decay in halves:
        parameter = torch.from_numpy(args["w"][part].copy()).requires_grad_()
        parameter.grad = torch.from_numpy(args["grad"][part] * args["grad"].dtype.type(args["scale"]))
        groups.append({"params": [parameter], "weight_decay": decay})
        m, v = (torch.from_numpy(args[name][part].copy()) for name in ("m", "v"))
        states.append({"step": torch.tensor(float(args["step"] - 1)), "exp_avg": m, "exp_avg_sq": v})
    betas = args["beta1"], args["beta2"]
    optimizer = torch.optim.AdamW(groups, lr=args["lr"], betas=betas, eps=args["eps"], fused=True)
    for group, state in zip(groups, states):
        optimizer.state[group["params"][0]] = state
    return optimizer
