"""The CUDA kernels, called as the reference ops. Written by `python tests/stubs.py` from the op table."""
from typing import Any

from .. import ops

attention_backward = ops.attention_backward
attention_backward_1_naive = ops.attention_backward
attention_backward_2_flash = ops.attention_backward
attention_backward_3_mma = ops.attention_backward
attention_backward_4_wgmma = ops.attention_backward
attention_forward = ops.attention_forward
attention_forward_1_naive = ops.attention_forward
attention_forward_2_flash = ops.attention_forward
attention_forward_3_mma = ops.attention_forward
attention_forward_4_wgmma = ops.attention_forward


def __getattr__(name: str) -> Any: ...          # what is no op: the decoder's step, threads, buffers
