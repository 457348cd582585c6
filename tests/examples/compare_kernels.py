"""The same op on every backend that is here: how far from the reference, and how long."""
import time

import numpy as np

from minillm import select
from minillm.kernels.select import OPS, Dims, choices, functions

print(f"{'op':<16}{'backend':<16}{'largest error':>14}{'forward ms':>12}")
for name in ("layernorm", "gelu", "linear", "attention"):
    spec = OPS[name]
    args = spec.sample(np.random.default_rng(0), "float32", Dims(B=2, T=64, C=64, NH=4))
    exact, _ = getattr(select("numpy"), functions(spec)[0])(
        **{key: value.astype("float64") if isinstance(value, np.ndarray) else value for key, value in args.items()})
    for choice in choices(name, "float32"):
        forward = getattr(select({name: choice}), functions(spec)[0])
        out, _ = forward(**args)
        started = time.perf_counter()
        for _ in range(5):
            forward(**args)
        milliseconds = (time.perf_counter() - started) / 5 * 1e3
        print(f"{name:<16}{choice:<16}{np.abs(out - exact).max():>14.1e}{milliseconds:>12.3f}")
