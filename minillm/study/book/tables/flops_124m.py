"""FLOPs of GPT-2 124M by op and phase, as the planner counts them from a dry run of the model's own code."""
from ....config import GPTConfig, TrainConfig
from ....train.estimate import step_flops, step_tokens
from ....train.memory import count_parameters
from ....workbench.plan import PRESETS, by_op

MODEL, TRAIN = GPTConfig(**PRESETS["124M"]), TrainConfig(batch_size=8)


def six_n_p_share() -> float:
    """The step's FLOPs over 6 N P."""
    return step_flops(MODEL, TRAIN).total() / (6 * count_parameters(MODEL) * step_tokens(MODEL, TRAIN))


def rows() -> list[list[str]]:
    """Op, GFLOPs forward, backward and update, share."""
    flops = step_flops(MODEL, TRAIN)
    phases, total = by_op(flops), flops.total()
    ops = list(dict.fromkeys(op for phase in phases.values() for op in phase))
    table = [["op", *(f"{phase}, GFLOP" for phase in phases), "% of the step"]]
    for op in ops:
        cells = [phase.get(op, 0) for phase in phases.values()]
        table.append([f"`{op}`", *(f"{count / 1e9:,.1f}" if count else "-" for count in cells),
                      f"{100 * sum(cells) / total:.1f}"])
    return table + [["all", *(f"{sum(phase.values()) / 1e9:,.1f}" for phase in phases.values()), "100"]]
