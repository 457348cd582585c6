"""Hours and dollars to train GPT-2 124M on 20 tokens a parameter, by device."""
from ....train.estimate import CHINCHILLA, step_flops, step_tokens
from ....train.memory import count_parameters
from ....workbench.devices import DEVICES, MFU
from .flops_124m import MODEL, TRAIN


def rows() -> list[list[str]]:
    """Device, peak, memory, hours at the share MFU of the peak, price, dollars."""
    total = step_flops(MODEL, TRAIN).total() / step_tokens(MODEL, TRAIN) * CHINCHILLA * count_parameters(MODEL)
    table = [["device", "peak, TFLOP/s", "memory, GB", "hours", "$ an hour", "$ in all"]]
    for device in DEVICES:
        hours = total / (MFU * device.flops) / 3600
        table.append([device.name, f"{device.flops / 1e12:,.0f}", f"{device.memory / 2 ** 30:.0f}", f"{hours:.2f}",
                      f"{device.price:.2f}", f"{hours * device.price:.2f}"])
    return table
