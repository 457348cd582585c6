"""The reference ops. Written by `python tests/stubs.py` from the op table."""
import numpy as np

Array = np.ndarray


def attention_forward(qkv: Array, n_head: int) -> tuple[Array, tuple]:
    """Attend from each token to itself and those before it, in every head (Vaswani et al. 2017, eq. 1)."""


def attention_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of attention_forward: dout (B, T, C), cache -> dqkv (B, T, 3C)."""


def attention_decode(q: Array, k: Array, v: Array, window: int = 0, softcap: float = 0.0, sinks: Array | None = None) -> Array:
    """Attend from the newest T tokens to all S tokens of the KV cache; query t stands at position S - T + t."""


def dropout_forward(x: Array, p: float, key: tuple) -> tuple[Array, tuple]:
    """Zero each number with probability p and scale the others by 1 / (1 - p) (Srivastava et al. 2014)."""


def dropout_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of dropout_forward, by the same mask: dout (...), cache -> dx (...)."""


def embedding_forward(tokens: Array, wte: Array, wpe: Array, start: int = 0) -> tuple[Array, tuple]:
    """Look up each token's embedding and add that of its position (Radford et al. 2018)."""


def embedding_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of embedding_forward, a scatter-add: dout (B, T, C), cache -> dwte (V, C), dwpe (block_size, C)."""


def geglu_forward(gate: Array, up: Array) -> tuple[Array, tuple]:
    """gelu(gate) * up (Shazeer 2020, eq. 5): gate (...) of floats, up of the same shape and dtype -> out (...), cache."""


def geglu_backward(dout: Array, cache: tuple) -> tuple[Array, ...]:
    """The gradients of geglu_forward: dout (...), cache -> dgate (...), dup (...)."""


def gelu_forward(x: Array) -> tuple[Array, tuple]:
    """GELU (tanh form) of each element: x (...) of floats -> out (...), cache (Hendrycks & Gimpel 2016, section 2)."""


def gelu_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of gelu_forward: dout (...), cache -> dx (...)."""


def gelu_exact_forward(x: Array) -> tuple[Array, tuple]:
    """GELU (exact form) of each element: x (...) of floats -> out (...), cache (Hendrycks & Gimpel 2016, eq. 1)."""


def gelu_exact_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of gelu_exact_forward: dout (...), cache -> dx (...)."""


def grouped_attention_forward(q: Array, k: Array, v: Array, n_head: int, window: int = 0, softcap: float = 0.0, sinks: Array | None = None) -> tuple[Array, tuple]:
    """Attend from each token to itself and those before it, heads of k and v shared (Ainslie et al. 2023)."""


def grouped_attention_backward(dout: Array, cache: tuple) -> tuple[Array, ...]:
    """The gradients of grouped_attention_forward: dout (B, T, NH * HS), cache -> dq, dk, dv; and dsinks (NH), where"""


def head(x: Array, wte: Array) -> Array:
    """Logits of each token: x (..., C), wte (V, C) -> (..., V). Raises ValueError for shapes or dtypes that differ."""


def layernorm_forward(x: Array, weight: Array, bias: Array, eps: float = 1e-05) -> tuple[Array, tuple]:
    """Normalise each row, then scale and shift it (Ba et al. 2016)."""


def layernorm_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of layernorm_forward: dout (..., C), cache -> dx (..., C), dweight (C), dbias (C)."""


def linear_forward(x: Array, weight: Array, bias: Array) -> tuple[Array, tuple]:
    """x @ weight + bias: x (..., I), weight (I, J), bias (J) -> out (..., J), cache."""


def linear_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of linear_forward: dout (..., J), cache -> dx (..., I), dweight (I, J), dbias (J)."""


def lora_linear_forward(x: Array, weight: Array, bias: Array, a: Array, b: Array, scale: float = 1.0, p: float = 0.0, key: tuple = (0, 0, 0)) -> tuple[Array, tuple]:
    """A frozen linear layer plus scale * drop(x) @ a @ b (Hu et al. 2021, section 4.1)."""


def lora_linear_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of lora_linear_forward: dout (..., J), cache -> dx (..., I), da (I, r), db (r, J)."""


def lora_mlp_forward(x: Array, fc_weight: Array, fc_bias: Array, fc_a: Array, fc_b: Array, proj_weight: Array, proj_bias: Array, proj_a: Array, proj_b: Array, fc_scale: float = 1.0, proj_scale: float = 1.0, p: float = 0.0, fc_key: tuple = (0, 0, 0), proj_key: tuple = (0, 0, 0)) -> tuple[Array, tuple]:
    """lora_linear, GELU, lora_linear: x (..., C), fc_weight (C, F), fc_bias (F), fc_a (C, r), fc_b (r, F), proj_weight"""


def lora_mlp_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of lora_mlp_forward: dout (..., D), cache -> dx, dfc_a, dfc_b, dproj_a, dproj_b."""


def lora_projection_forward(x: Array, weight: Array, bias: Array, a: Array, b: Array, scale: float = 1.0, p: float = 0.0, key: tuple = (0, 0, 0)) -> tuple[Array, tuple]:
    """A frozen projection plus scale * drop(x) @ a.T @ b.T (Hu et al. 2021, section 4.1)."""


def lora_projection_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of lora_projection_forward: dout (..., J), cache -> dx (..., I), da (r, I), db (J, r)."""


def mlp_forward(x: Array, fc_weight: Array, fc_bias: Array, proj_weight: Array, proj_bias: Array) -> tuple[Array, tuple]:
    """linear, GELU, linear: x (..., C), fc_weight (C, F), fc_bias (F), proj_weight (F, C), proj_bias (C) -> out, cache."""


def mlp_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of mlp_forward: dout (..., C), cache -> dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias."""


def projection_forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, tuple]:
    """x @ weight.T + bias: x (..., I), weight (J, I), bias (J) or None -> out (..., J), cache."""


def projection_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of projection_forward: dout (..., J), cache -> dx (..., I), dweight (J, I), dbias (J)."""


def relu_forward(x: Array) -> tuple[Array, tuple]:
    """max(x, 0) of each element: x (...) of floats -> out (...), cache (Nair & Hinton 2010)."""


def relu_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of relu_forward: dout (...), cache -> dx (...)."""


def relu_squared_forward(x: Array) -> tuple[Array, tuple]:
    """max(x, 0)^2 of each element: x (...) of floats -> out (...), cache (So et al. 2021)."""


def relu_squared_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of relu_squared_forward: dout (...), cache -> dx (...)."""


def residual_forward(x: Array, y: Array) -> tuple[Array, tuple]:
    """x + y (He et al. 2015): x (...), y of the same shape and dtype -> out (...), cache. Else ValueError."""


def residual_backward(dout: Array, cache: tuple) -> tuple[Array, ...]:
    """The gradients of residual_forward: dout (...), cache -> dx (...), dy (...), which are fresh and equal."""


def residual_layernorm_forward(x: Array, y: Array, weight: Array, bias: Array, eps: float = 1e-05) -> tuple[tuple[Array, ...], tuple]:
    """Add, then normalise: x (..., C), y (..., C), weight (C), bias (C) -> (s (..., C), out (..., C)), cache."""


def residual_layernorm_backward(douts: tuple[Array, ...], cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of residual_layernorm_forward: douts, cache -> dx, dy, dweight, dbias."""


def residual_rmsnorm_forward(x: Array, y: Array, weight: Array, eps: float = 1e-06) -> tuple[tuple[Array, ...], tuple]:
    """Add, then normalise: x (..., C), y (..., C), weight (C) -> (s (..., C), out (..., C)), cache."""


def residual_rmsnorm_backward(douts: tuple[Array, ...], cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of residual_rmsnorm_forward: douts, cache -> dx, dy, dweight."""


def rmsnorm_forward(x: Array, weight: Array, eps: float = 1e-06) -> tuple[Array, tuple]:
    """Scale each row to root mean square 1, then by weight (Zhang & Sennrich 2019, eq. 4)."""


def rmsnorm_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of rmsnorm_forward: dout (..., C), cache -> dx (..., C), dweight (C)."""


def rope_forward(x: Array, cos: Array, sin: Array, interleaved: int = 0) -> tuple[Array, tuple]:
    """Rotate the pairs of every head (Su et al. 2021, eq. 34)."""


def rope_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of rope_forward: dout (B, T, C), cache -> dx (B, T, C)."""


def softcap_forward(x: Array, cap: float) -> tuple[Array, tuple]:
    """cap * tanh(x / cap) of each element (Gemma Team 2024): x (...) of floats, cap above 0 -> out (...), cache."""


def softcap_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of softcap_forward: dout (...), cache -> dx (...)."""


def softmax_forward(x: Array) -> tuple[Array, tuple]:
    """exp(x) of each row, scaled to sum 1: x (..., V) -> out (..., V), cache. Raises ValueError for empty rows."""


def softmax_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of softmax_forward: dout (..., V), cache -> dx (..., V)."""


def swiglu_forward(gate: Array, up: Array) -> tuple[Array, tuple]:
    """silu(gate) * up (Shazeer 2020, eq. 6): gate (...) of floats, up of the same shape and dtype -> out (...), cache."""


def swiglu_backward(dout: Array, cache: tuple) -> tuple[Array, ...]:
    """The gradients of swiglu_forward: dout (...), cache -> dgate (...), dup (...)."""


def token_embedding_forward(tokens: Array, wte: Array) -> tuple[Array, tuple]:
    """Look up each token's embedding: tokens (B, T) int, wte (V, C) -> out (B, T, C), cache."""


def token_embedding_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> Array:
    """The gradient of token_embedding_forward, a scatter-add: dout (B, T, C), cache -> dwte (V, C)."""


def cross_entropy_forward(logits: Array, targets: Array, ignore_index: int = -1) -> tuple[Array, tuple]:
    """-log softmax(logits)[target] of each row; 0 where the target is ignore_index."""


def cross_entropy_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of cross_entropy_forward: dout (N,), cache -> dlogits (N, V)."""


def distillation_loss_forward(logits: Array, teacher: Array, targets: Array, temperature: float = 1.0, weight: float = 0.9, ignore_index: int = -1) -> tuple[Array, tuple]:
    """(1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher || student) of each row (Hinton et al. 2015)."""


def distillation_loss_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of distillation_loss_forward, with the teacher a constant: dout (N,), cache -> dlogits (N, V)."""


def dpo_loss_forward(chosen: Array, rejected: Array, ref_chosen: Array, ref_rejected: Array, beta: float = 0.1, label_smoothing: float = 0.0) -> tuple[Array, tuple]:
    """The DPO loss of pairs of answers (Rafailov et al. 2023, eq. 7)."""


def dpo_loss_backward(dout: Array, cache: tuple) -> tuple[Array, ...]:
    """The gradients of dpo_loss_forward: dout (N,), cache -> dchosen (N,), drejected (N,)."""


def grpo_loss_forward(logp: Array, old_logp: Array, ref_logp: Array, advantages: Array, clip: float = 0.2, beta: float = 0.04) -> tuple[Array, tuple]:
    """The clipped policy gradient of each token with a KL penalty, beta (Shao et al. 2024, eqs. 3 and 4)."""


def grpo_loss_backward(dout: Array, cache: tuple) -> Array:
    """The gradient of grpo_loss_forward: dout (N,), cache -> dlogp (N,)."""


def linear_cross_entropy_forward(x: Array, wte: Array, targets: Array, ignore_index: int = -1) -> tuple[Array, tuple]:
    """cross_entropy of the logits x @ wte.T, which are never all in memory."""


def linear_cross_entropy_backward(dout: Array, cache: tuple, into: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
    """The gradients of linear_cross_entropy_forward: dout (N,), cache -> dx (N, C), dwte (V, C)."""


def adamw_update(w: Array, grad: Array, m: Array, v: Array, step: int, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-08, weight_decay: float = 0.0, n_decayed: int = 0, scale: float = 1.0, bits: Array | None = None) -> None:
    """One step of AdamW, in place on w, m and v (Loshchilov & Hutter 2019, algorithm 2)."""


def muon_update(w: Array, grad: Array, m: Array, lr: float, momentum: float = 0.95, weight_decay: float = 0.0, scale: float = 1.0, bits: Array | None = None) -> None:
    """One step of Muon, in place on w and m (Jordan et al. 2024)."""


def sum_squares(x: Array) -> float:
    """The sum of x[i]^2: x (P,) of real floats -> float; NaN or infinity in x gives NaN or infinity."""
