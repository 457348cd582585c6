"""How much memory training takes, told before any of it is allocated."""
from pathlib import Path

from ..config import GPTConfig

PER_PARAMETER = 16          # bytes: weight, gradient and two moments, float32 each
PER_TOKEN = 14              # floats kept for the backward, for each token, channel and layer (measured)
CGROUP = Path("/sys/fs/cgroup")


def count_parameters(c: GPTConfig) -> int:
    """Of a GPT-2 of this shape, by its formula: a shape may be too large even to be listed."""
    block = 12 * c.n_embd ** 2 + 13 * c.n_embd
    return (c.vocab_size + c.block_size) * c.n_embd + c.n_layer * block + 2 * c.n_embd


def free_bytes() -> int | None:
    """What the system, or the container, can still give; None where neither says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def check_memory(c: GPTConfig, batch_size: int) -> str:
    """A few words on what training needs, parameters and activations. Raises ValueError for more than there is."""
    size, free = count_parameters(c), free_bytes()
    needed = PER_PARAMETER * size + 4 * PER_TOKEN * batch_size * c.block_size * c.n_layer * c.n_embd
    if free is not None and needed > free:
        raise ValueError(f"a model of {size / 1e6:,.1f}M parameters needs about {needed / 1e9:,.1f} GB to train, and "
                         f"{free / 1e9:,.1f} GB are free: choose a smaller n_layer, n_embd, block_size or batch_size")
    return f"{size / 1e6:.1f}M parameters, about {needed / 1e9:.1f} GB to train"
