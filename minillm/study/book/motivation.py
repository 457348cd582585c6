"""Why an op is there, as far as the code knows: what calls it, what it costs a training step, which chapters use it."""
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...config import GPTConfig, TrainConfig
from ...ops.spec import Spec
from ...ops.table import functions
from ...train.estimate import step_flops
from ...workbench.plan import PRESETS, by_op
from .blocks import Block, Items, Paragraph
from .listings import ROOT
from .markup import inline

CALLERS = ("models", "train", "generation", "posttrain", "evaluate", "serve")          # rooms that run ops
CHAPTERS = Path(__file__).with_name("chapters")
MODEL, TRAIN = GPTConfig(**PRESETS["124M"]), TrainConfig(batch_size=8)


def motivation(spec: Spec, label: str, prose: Sequence[str]) -> list[Block]:
    """Paragraphs and a list of the places that call the op."""
    blocks: list[Block] = [Paragraph(inline(cost_of_a_step(spec.name)))]
    if places := called_in(spec):
        blocks.append(Paragraph(inline("It is called in")))
        blocks.append(Items(False, [inline(f"`{path}`, line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}")
                                    for path, lines in places.items()]))
    if chapters := chapters_on(label, prose):
        blocks.append(Paragraph(inline("More on it: " + ", ".join(f"{{ref:{name}}}" for name in chapters) + ".")))
    return blocks


@cache
def shares() -> dict[str, float]:
    """{op: its share of the FLOPs of a training step} of GPT-2 124M, as `minillm plan` counts them."""
    flops = step_flops(MODEL, TRAIN)
    phases = by_op(flops).values()
    return {op: sum(phase.get(op, 0) for phase in phases) / flops.total() for phase in phases for op in phase}


def cost_of_a_step(op: str) -> str:
    """A sentence on what the op takes of a step."""
    sizes = f"GPT-2 124M with {TRAIN.batch_size} sequences of {MODEL.block_size:,} tokens"
    if op not in shares():
        return f"A training step of {sizes} does not call it by itself."
    return f"In a training step of {sizes} it takes {100 * shares()[op]:.2g}% of the FLOPs."


def called_in(spec: Spec) -> dict[str, list[int]]:
    """{file: lines} that name one of its functions."""
    named = re.compile(rf"\b({'|'.join(functions(spec))})\(")
    found = {}
    for path in sorted(path for room in CALLERS for path in (ROOT / "minillm" / room).rglob("*.py")):
        lines = [number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                 if named.search(line)]
        if lines:
            found[path.relative_to(ROOT).as_posix()] = lines
    return found


def chapters_on(label: str, prose: Sequence[str]) -> list[str]:
    """The prose chapters that refer to the op's chapter, or to an equation of it."""
    mark = re.compile(rf"\{{ref:{label}(-eq-[a-z-]+)?\}}")
    return [name for name in prose if mark.search((CHAPTERS / f"{name}.md").read_text(encoding="utf-8"))]
