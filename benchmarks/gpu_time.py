"""Speed of the CUDA attention on this GPU: ours against PyTorch's four backends, arrays on the device, bfloat16.

The convention of the FlashAttention papers: B * T = 16,384 tokens, NH * HS = 2,048; forward 4 * B * NH * T * T * HS
floating-point operations, half of it where causal, backward 2.5 times that. Every candidate's result is compared before
it is timed; candidates take turns; figures are medians.
"""
import statistics
import subprocess
from itertools import product

LENGTHS, HEAD_SIZES = (512, 1024, 2048, 4096, 8192, 16384), (64, 128)
TOKENS, WIDTH = 16384, 2048
TORCH_BACKENDS = {"torch MATH": "MATH", "torch EFFICIENT": "EFFICIENT_ATTENTION", "torch FLASH": "FLASH_ATTENTION",
                  "torch CUDNN": "CUDNN_ATTENTION"}
LIMIT = 2e-2                            # of the norm, between two bfloat16 results
ROUNDS = 12


def flops(B, NH, T, HS, causal, backward):
    return 4 * B * NH * T * T * HS * (0.5 if causal else 1) * (2.5 if backward else 1)


def device():
    """What the GPU is, and its measured roofline: TFLOP/s of a bfloat16 GEMM, GB/s of a copy."""
    import torch
    properties = torch.cuda.get_device_properties(0)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2 ** 30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    gemm_ms = milliseconds(torch, {"gemm": lambda: a @ b})["gemm"]
    copy_ms = milliseconds(torch, {"copy": lambda: target.copy_(source)})["copy"]
    return {"name": properties.name, "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2 ** 30, 1), "torch": torch.__version__, "driver": driver(),
            "bf16_tflops": round(2 * 8192 ** 3 / gemm_ms / 1e9, 1), "memory_gbs": round(2 * 2 ** 30 / copy_ms / 1e6)}


def driver():
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def milliseconds(torch, calls, rounds=ROUNDS):
    """{name: median milliseconds}, by events on the GPU, in turns, after two rounds of warming up."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 2:
                times[name].append(begin.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def ours(torch, module, causal, variant):
    """(forward, backward) on torch tensors, on torch's stream."""
    def stream():
        return torch.cuda.current_stream().cuda_stream

    def forward(q, k, v):
        out, cache = module.arrays_forward(q, k, v, causal, variant, stream())
        return torch.from_dlpack(out), cache

    def backward(dout, cache):
        return [torch.from_dlpack(x) for x in module.arrays_backward(dout, cache, stream())]
    return forward, backward


def torch_backend(torch, name, causal):
    """The same of scaled_dot_product_attention pinned to one backend."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    backend = getattr(SDPBackend, TORCH_BACKENDS[name])

    def forward(q, k, v):
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        with sdpa_kernel(backend):
            out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=causal)
        return out, (out, leaves)

    def backward(dout, cache):
        out, leaves = cache
        return list(torch.autograd.grad(out, leaves, dout, retain_graph=True))
    return forward, backward


def flash_attn(torch, causal):
    """The flash-attn package's, where it is installed; it takes (B, T, NH, HS)."""
    from flash_attn import flash_attn_func

    def forward(q, k, v):
        leaves = [x.detach().transpose(1, 2).requires_grad_() for x in (q, k, v)]
        out = flash_attn_func(*leaves, causal=causal)
        return out.transpose(1, 2), (out, leaves)

    def backward(dout, cache):
        out, leaves = cache
        return [x.transpose(1, 2) for x in torch.autograd.grad(out, leaves, dout.transpose(1, 2), retain_graph=True)]
    return forward, backward


def candidates(torch, module, causal):
    found = {"minillm 3_mma": ours(torch, module, causal, 3)}
    if module.capability() == 90:                           # its backward is that of 3_mma
        found["minillm 4_wgmma"] = ours(torch, module, causal, 4)
    found |= {name: torch_backend(torch, name, causal) for name in TORCH_BACKENDS}
    try:
        found["flash-attn"] = flash_attn(torch, causal)
    except ImportError:
        pass
    return found


def error(got, want):
    return ((got.float() - want.float()).norm() / want.float().norm()).item()


def prepared(torch, pairs, q, k, v, dout):
    """({name: cache}, {name: why it is left out}): each candidate run once and compared with the first that ran."""
    caches, refused, first = {}, {}, None
    for name, (forward, backward) in pairs.items():
        try:
            out, cache = forward(q, k, v)
            results = [out.detach(), *backward(dout, cache)]
        except (RuntimeError, torch.OutOfMemoryError) as problem:
            refused[name] = str(problem).splitlines()[0][:120]
            torch.cuda.empty_cache()
            continue
        first = first or results
        worst = max(error(a, b) for a, b in zip(results, first))
        if worst < LIMIT:
            caches[name] = cache
        else:
            refused[name] = f"differs from {next(iter(caches), 'the first')} by {worst:.1e}"
    return caches, refused


def peak_mib(torch, module, call):
    """Memory that a call took on top of what was in use, in torch's allocator and in ours."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    module.peak_bytes()                                     # forget the past; the next answer is what is in use now
    before = torch.cuda.memory_allocated() + module.peak_bytes()
    kept = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() + module.peak_bytes()
    del kept
    return round((peak - before) / 2 ** 20)


def case(torch, module, T, HS, causal):
    """Rows of one size: forward and backward of every candidate."""
    B, NH = TOKENS // T, WIDTH // HS
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v, dout = (torch.randn(B, NH, T, HS, device="cuda", dtype=torch.bfloat16, generator=generator)
                     for _ in range(4))
    pairs = candidates(torch, module, causal)
    caches, refused = prepared(torch, pairs, q, k, v, dout)
    rows = []
    for direction in ("forward", "backward"):
        calls = {name: (lambda p=pairs[name]: p[0](q, k, v)) if direction == "forward" else
                 (lambda p=pairs[name], c=caches[name]: p[1](dout, c)) for name in caches}
        work = flops(B, NH, T, HS, causal, direction == "backward")
        for name, ms in milliseconds(torch, calls).items():
            rows.append({"T": T, "HS": HS, "causal": causal, "direction": direction, "name": name,
                         "ms": round(ms, 4), "tflops": round(work / ms / 1e9, 1),
                         "peak_mib": peak_mib(torch, module, calls[name])})
    return rows, refused


def timing(module, deadline, clock, lengths=LENGTHS):
    """Rows of all sizes, causal first, until the deadline (a time of `clock`); what did not fit is named."""
    import torch
    rows, left_out = [], {}
    for causal, HS, T in product((True, False), HEAD_SIZES, lengths):
        label = f"T={T} HS={HS} {'causal' if causal else 'full'}"
        if clock() > deadline:
            left_out[label] = "no time"
            continue
        found, refused = case(torch, module, T, HS, causal)
        rows += found
        left_out |= {f"{label} {name}": why for name, why in refused.items()}
        torch.cuda.empty_cache()
    return rows, left_out
