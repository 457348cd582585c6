"""Exercises with answers: those of `minillm learn` for an op, and questions whose answers the op table computes."""
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ...gradcheck import gradcheck
from ...ops.spec import Spec
from ...ops.table import OPS, Dims, functions
from ...workbench.kernel.template import GPT2, moved
from .blocks import Block, Code, Exercise, Items, Paragraph, Span
from .derivation import prose
from .markup import inline

LONG = Dims(B=1, T=1024, C=768, NH=12, V=50257)
SMALL = Dims(B=1, T=3, C=4, NH=2, V=5)


def exercises_of(spec: Spec) -> list[Exercise]:
    """The exercises of an op's chapter: write it, count it, break it."""
    questions = [question for question in (flops_question(spec), scaling_question(spec), wrong_question(spec))
                 if question]
    return [*learn_exercises(spec.name), *questions]


def learn_exercises(op: str) -> list[Exercise]:
    """Those of `minillm learn` that are judged by this op."""
    path = learn_path()
    return [learn_exercise(each.name) for each in path.exercises() if each.op == op] if path else []


def learn_path() -> Any:
    """The module that lists them, or None."""
    try:
        return import_module("..learn.path", __package__)
    except ModuleNotFoundError:
        return None


def learn_exercise(name: str) -> Exercise:
    """An exercise of `minillm learn`: its task; the answer is the derivation, step by step, and the solution."""
    path = learn_path()
    if path is None:
        raise ValueError(f"{{exercise:{name}}}: there is no minillm learn here")
    exercise = path.exercise_called(name)
    task = exercise.title + ". `minillm learn " + name + "` writes the file to fill in and judges it."
    steps: list[Block] = [Items(True, [prose(exercise.task, 1, [hint]) for hint in exercise.hints])]
    code = exercise.reference().strip()
    if exercise.suffix == ".py":
        code = code.split('"""', 2)[-1].strip() if code.startswith('"""') else code
    return Exercise(inline(task), [*steps, Code(code, "cpp" if exercise.c else "python")])


def flops_question(spec: Spec) -> Exercise:
    """Count the work of a call."""
    sizes = ", ".join(f"{key} = {value:,}" for key, value in GPT2.sampled().items())
    counts = [f"`{function}` {flops:,} FLOPs and {moved(spec.name, signature, GPT2):,} bytes"
              for function, signature, flops in zip(functions(spec), spec.signatures(), spec.flops(GPT2))]
    question = (f"With {sizes} in float32: how many FLOPs does a call of `{spec.name}` take, and how many bytes must "
                "it move at least? Is it bound by arithmetic or by memory on a processor that does ten FLOPs in the "
                "time of one byte?")
    ratio = max(flops / moved(spec.name, signature, GPT2)
                for signature, flops in zip(spec.signatures(), spec.flops(GPT2)))
    bound = "arithmetic binds" if ratio > 10 else "memory binds"
    return Exercise(inline(question), [Paragraph(inline(
        f"{'; '.join(counts)}. At most {ratio:,.2f} FLOPs a byte, so {bound}."))])


def scaling_question(spec: Spec) -> Exercise | None:
    """What doubling the context does to the work."""
    once, twice = spec.flops(LONG)[0], spec.flops(LONG._replace(T=2 * LONG.T))[0]
    if not once:
        return None
    factor = twice / once
    law = ("it does not depend on T" if factor < 1.01 else "it grows with T" if factor < 2.01 else
           "part of it grows with the square of T" if factor < 3.99 else "it grows with the square of T")
    return Exercise(inline(f"By what factor do the forward's FLOPs of `{spec.name}` grow when T is doubled from 1,024 "
                           "to 2,048, and what in the formula says so?"),
                    [Paragraph(inline(f"By {factor:,.2f}: {law}. The op table counts {once:,} and {twice:,}."))])


def wrong_question(spec: Spec) -> Exercise | None:
    """A wrong backward, and what gradcheck says of it, asked for when the book is built."""
    if spec.kind != "pair":
        return None
    name = spec.differentiable[0]
    said = diagnosis(spec, lambda grad: 2 * grad)
    return Exercise(inline(f"Let `{functions(spec)[1]}` return twice its gradient of `{name}`. Would training fail? "
                           "What does `minillm gradcheck` say?"),
                    [Paragraph([*inline("The loss may still fall, since the direction is often good enough, which is "
                                        "why such an error goes unnoticed. The check says: "),
                                Span("emphasis", [Span("text", said)]), Span("text", ".")])])


def diagnosis(spec: Spec, spoil: Callable[[np.ndarray], np.ndarray]) -> str:
    """gradcheck's sentence on a backward whose first gradient is spoiled."""
    from ...kernels.select import select
    namespace = select(dict.fromkeys(OPS, "numpy"))
    forward, right = (getattr(namespace, function) for function in functions(spec))

    def backward(dout: Any, cache: tuple) -> Any:
        grads = right(dout, cache)
        return (spoil(grads[0]), *grads[1:]) if isinstance(grads, tuple) else spoil(grads)

    rows = gradcheck(forward, backward, spec.sample(np.random.default_rng(0), "float64", SMALL),
                     raise_exception=False, wrt=spec.differentiable)
    return next((row.note for row in rows if not row.passed), "nothing").rstrip(".")
