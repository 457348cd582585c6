"""The kernels of one instruction set, called as the reference ops. Written by `python tests/stubs.py` from the op table."""
from typing import Any

from .. import ops

adamw_update = ops.adamw_update
attention_backward = ops.attention_backward
attention_backward_1_naive = ops.attention_backward
attention_backward_2_blocked = ops.attention_backward
attention_backward_3_simd = ops.attention_backward
attention_backward_bf16 = ops.attention_backward
attention_decode = ops.attention_decode
attention_forward = ops.attention_forward
attention_forward_1_naive = ops.attention_forward
attention_forward_2_blocked = ops.attention_forward
attention_forward_3_simd = ops.attention_forward
attention_forward_bf16 = ops.attention_forward
cross_entropy_backward = ops.cross_entropy_backward
cross_entropy_forward = ops.cross_entropy_forward
distillation_loss_backward = ops.distillation_loss_backward
distillation_loss_forward = ops.distillation_loss_forward
dropout_backward = ops.dropout_backward
dropout_forward = ops.dropout_forward
embedding_backward = ops.embedding_backward
embedding_forward = ops.embedding_forward
geglu_backward = ops.geglu_backward
geglu_forward = ops.geglu_forward
gelu_backward = ops.gelu_backward
gelu_exact_backward = ops.gelu_exact_backward
gelu_exact_forward = ops.gelu_exact_forward
gelu_forward = ops.gelu_forward
grouped_attention_backward = ops.grouped_attention_backward
grouped_attention_backward_bf16 = ops.grouped_attention_backward
grouped_attention_forward = ops.grouped_attention_forward
grouped_attention_forward_bf16 = ops.grouped_attention_forward
head = ops.head
layernorm_backward = ops.layernorm_backward
layernorm_forward = ops.layernorm_forward
linear_backward = ops.linear_backward
linear_backward_1_naive = ops.linear_backward
linear_backward_2_blocked = ops.linear_backward
linear_backward_3_simd = ops.linear_backward
linear_backward_4_amx = ops.linear_backward
linear_backward_bf16 = ops.linear_backward
linear_cross_entropy_backward = ops.linear_cross_entropy_backward
linear_cross_entropy_backward_bf16 = ops.linear_cross_entropy_backward
linear_cross_entropy_forward = ops.linear_cross_entropy_forward
linear_cross_entropy_forward_bf16 = ops.linear_cross_entropy_forward
linear_forward = ops.linear_forward
linear_forward_1_naive = ops.linear_forward
linear_forward_2_blocked = ops.linear_forward
linear_forward_3_simd = ops.linear_forward
linear_forward_4_amx = ops.linear_forward
linear_forward_bf16 = ops.linear_forward
mlp_backward = ops.mlp_backward
mlp_backward_bf16 = ops.mlp_backward
mlp_forward = ops.mlp_forward
mlp_forward_bf16 = ops.mlp_forward
projection_backward = ops.projection_backward
projection_backward_bf16 = ops.projection_backward
projection_forward = ops.projection_forward
projection_forward_bf16 = ops.projection_forward
relu_squared_backward = ops.relu_squared_backward
relu_squared_forward = ops.relu_squared_forward
residual_layernorm_backward = ops.residual_layernorm_backward
residual_layernorm_forward = ops.residual_layernorm_forward
residual_rmsnorm_backward = ops.residual_rmsnorm_backward
residual_rmsnorm_forward = ops.residual_rmsnorm_forward
rmsnorm_backward = ops.rmsnorm_backward
rmsnorm_forward = ops.rmsnorm_forward
rope_backward = ops.rope_backward
rope_forward = ops.rope_forward
softcap_backward = ops.softcap_backward
softcap_forward = ops.softcap_forward
sum_squares = ops.sum_squares
swiglu_backward = ops.swiglu_backward
swiglu_forward = ops.swiglu_forward
token_embedding_backward = ops.token_embedding_backward
token_embedding_forward = ops.token_embedding_forward


def __getattr__(name: str) -> Any: ...          # what is no op: the decoder's step, threads, buffers
