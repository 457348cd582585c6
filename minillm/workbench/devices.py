"""Devices to rent: the peak of their dense bfloat16 GEMMs, memory, and what an hour costs.

Peaks and memory are of the makers' data sheets (without sparsity): NVIDIA A100, L4, H100, H200, B200; NVIDIA Ada GPU
architecture white paper, appendix A (RTX 4090, float32 accumulation); Google Cloud TPU documentation (v5e, v5p).
Prices are list prices on demand, a chip and hour in US dollars, rounded, as seen in 2025: lambda.ai (A100, H100, B200),
runpod.io (RTX 4090, L4, H200), cloud.google.com (TPU). They change often: --price gives one's own.
"""
from typing import NamedTuple


class Device(NamedTuple):
    name: str
    flops: float                # a second, at its peak
    memory: int                 # bytes
    price: float                # dollars an hour


MFU = 0.4       # share of the peak that training reaches: 0.46 for PaLM 540B (Chowdhery et al. 2022, arXiv 2204.02311,
                # table 3), 0.44 to 0.52 on A100 in Megatron-LM (Narayanan et al. 2021, arXiv 2104.04473, table 1)
DEVICES = (
    Device("RTX 4090", 165e12, 24 << 30, 0.69),
    Device("L4", 121e12, 24 << 30, 0.43),
    Device("A100 80GB", 312e12, 80 << 30, 1.79),
    Device("H100 SXM", 989e12, 80 << 30, 2.99),
    Device("H200 SXM", 989e12, 141 << 30, 3.99),
    Device("B200", 2250e12, 180 << 30, 4.99),
    Device("TPU v5e", 197e12, 16 << 30, 1.20),
    Device("TPU v5p", 459e12, 95 << 30, 4.20),
)
