"""Devices to rent: the peak of their dense bfloat16 GEMMs, memory, and what an hour costs.

Peaks and memory, without sparsity, are those of the makers' data sheets as other pages repeat them, which were searched
on 2026-11-29 (the RTX 4090's was not found there and is from memory): NVIDIA A100 (312 TFLOP/s), H100 and H200 SXM
(989), HGX B200 at 1,000 W (2,250; 180 GB are for rent of its 192), L4 (242 with sparsity; tables that count float32
accumulation apart give half of it), RTX 4090 with float32 accumulation; Google Cloud TPU documentation,
docs.cloud.google.com/tpu/docs/v5e and v5p.
Prices are those of runpod.io/pricing, Secure Cloud, on demand, a chip and hour in US dollars: A100 and H100 as of
2026-11-09, H200 and B200 of 2026-10-07, RTX 4090 and L4 of 2025, none newer being found. Of the TPUs none could be
confirmed, so they have none (0). Prices change often (an H100 cost 2.99 in 2025): --price gives one's own.
"""
from typing import NamedTuple


class Device(NamedTuple):
    name: str
    flops: float                # a second, at its peak
    memory: int                 # bytes
    price: float                # dollars an hour; 0: not known


MFU = 0.4       # share of the peak that training reaches: 0.46 for PaLM 540B (Chowdhery et al. 2022, arXiv 2204.02311,
                # table 3), 0.44 to 0.52 on A100 in Megatron-LM (Narayanan et al. 2021, arXiv 2104.04473, table 1)
DEVICES = (
    Device("RTX 4090", 165e12, 24 << 30, 0.69),
    Device("L4", 121e12, 24 << 30, 0.43),
    Device("A100 80GB", 312e12, 80 << 30, 1.79),
    Device("H100 SXM", 989e12, 80 << 30, 3.99),
    Device("H200 SXM", 989e12, 141 << 30, 4.59),
    Device("B200", 2250e12, 180 << 30, 6.79),
    Device("TPU v5e", 197e12, 16 << 30, 0.0),
    Device("TPU v5p", 459e12, 95 << 30, 0.0),
)
