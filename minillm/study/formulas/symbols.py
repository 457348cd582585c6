"""What the names in formulas stand for: letters, words of the field, the arguments of the ops and their gradients."""
from inspect import signature

from ...ops.table import OPS, REFERENCE
from .parse import BIG, PREFIX

LETTERS = {         # names that are set as one letter
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "lambda": "λ", "mu": "μ", "pi": "π",
    "sigma": "σ", "tau": "τ", "theta": "θ", "Phi": "Φ", "Delta": "Δ", "sigmoid": "σ", "lr": "η", "weight_decay": "λ"}
REDUCTIONS = {"sum", "mean", "std", "max", "min", "logsumexp", "norm"}      # a row becomes one number
FUNCTIONS = {*BIG, *PREFIX, *REDUCTIONS, *REFERENCE, *"""softmax layernorm gelu erf drop clip round cos mod Im binomial
    CE KL cross_entropy embedding attention rmsnorm mlp qkv proj plus minus centre""".split()}
ARGUMENTS = {name for function in REFERENCE.values() for name in signature(function).parameters}
DIFFERENTIABLE = {name for spec in OPS.values() for name in spec.differentiable}
INSIDE = {"out", "xhat", "logits", "loss", "losses", "mean", "rstd", "var", "sum", "logp", "logsumexp"}
SIZES = {"NH", "HS", "OC"}
QUANTITIES = set("""scale keep top rows columns step steps warmup start end predicted nats bytes flops peak bandwidth
    angle head floor layer embd vocab size per token byte cost small unique numpy left right kl decayed""".split())
WORDS = {*LETTERS, *FUNCTIONS, *ARGUMENTS, *DIFFERENTIABLE, *INSIDE, *SIZES, *QUANTITIES}
SCALARS = {*LETTERS, *SIZES, "scale", "mean", "rstd", "var", "loss", "top", "beta1", "beta2", "min_lr", "cost"}
ARRAYS = {"out", "xhat", "logits", "weight", "bias", "wte", "g", "P", "Q", "S", "keep"}
EITHER = {"x", "w", "m", "v", "p"}              # arrays or numbers: what they are multiplied with says it
BEFORE = {"ref", "old", "fc", "proj", "min", "max"}             # set as an index: ref_logp is logp with the index ref


def is_gradient(name: str) -> bool:
    """Whether it is d and the name of an array: the gradient of the loss with respect to it."""
    rest = name[1:]
    return name[:1] == "d" and (len(rest) == 1 or rest in DIFFERENTIABLE | INSIDE or rest.endswith("hat"))


def is_known(name: str) -> bool:
    """Whether a name is one of a formula, and no word of the text around it."""
    base = name.rstrip("0123456789")
    return len(base) <= 1 or base in WORDS or is_gradient(base) or base.endswith("hat") and len(base) == 4 or (
        "_" in base and all(map(is_known, name.split("_"))))
