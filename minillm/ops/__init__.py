"""Reference operations: one file per op, each a derivation, a forward and a backward, in NumPy only.

Every pair keeps one contract:

    out, cache = op_forward(*inputs)
    dinputs    = op_backward(dout, cache)

Results are fresh arrays; inputs and caches are never written; `cache` is an opaque tuple owned by the pair. (One op has
two outputs: its `out` and `dout` are pairs.) A backward with gradients of parameters takes `into`: arrays to add them to,
in the order in which it returns them, where fresh ones would only be added by the caller; None in place of an array says
that nobody wants this gradient (its layer is frozen), and the compiled ops do not compute it.
`x.dtype` decides the precision: float32 to train, float64 for gradient checks, complex128 for the complex step
(so formulas here use no abs, no conj, and compare by real part). Constants are Python floats, because one NumPy
float64 scalar would silently promote a whole float32 model.
"""
from .adamw import adamw_update
from .attention import attention_backward, attention_decode, attention_forward
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .distillation_loss import distillation_loss_backward, distillation_loss_forward
from .dpo_loss import dpo_loss_backward, dpo_loss_forward
from .dropout import dropout_backward, dropout_forward
from .embedding import embedding_backward, embedding_forward
from .gelu import gelu_backward, gelu_forward
from .grpo_loss import grpo_loss_backward, grpo_loss_forward
from .head import head
from .layernorm import layernorm_backward, layernorm_forward
from .linear import linear_backward, linear_forward
from .linear_cross_entropy import linear_cross_entropy_backward, linear_cross_entropy_forward
from .lora_linear import lora_linear_backward, lora_linear_forward
from .mlp import mlp_backward, mlp_forward
from .residual_layernorm import residual_layernorm_backward, residual_layernorm_forward
from .sum_squares import sum_squares

__all__ = [name for name in dir()
           if name.endswith(("_forward", "_backward", "_update", "_decode")) or name in ("head", "sum_squares")]
