"""Parameters of GPT-2 124M by tensor, from the model's own shapes."""
from ....config import GPTConfig
from ....models.params import gpt_shapes
from ....workbench.plan import PRESETS


def counts() -> list[tuple[str, tuple, int, int]]:
    """(name, shape, how many of it, numbers in all); a block's tensors stand once, with n_layer."""
    c = GPTConfig(**PRESETS["124M"])
    found = []
    for name, shape in gpt_shapes(c).items():
        if name.startswith("h.") and not name.startswith("h.0."):
            continue
        size = 1
        for length in shape:
            size *= length
        copies = c.n_layer if name.startswith("h.0.") else 1
        found.append((name.replace("h.0.", "h.i."), shape, copies, copies * size))
    return found


def rows() -> list[list[str]]:
    """Tensor, shape, times, parameters, share."""
    found, total = counts(), sum(size for *_, size in counts())
    table = [["tensor", "shape", "times", "parameters", "% of all"]]
    for name, shape, copies, size in found:
        table.append([f"`{name}`", " x ".join(f"{length:,}" for length in shape), str(copies), f"{size:,}",
                      f"{100 * size / total:.2f}"])
    return table + [["all", "", "", f"{total:,}", "100"]]
