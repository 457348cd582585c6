"""The chapter of an op, made of its row of the op table: nothing about an op is written here.

Motivation and derivation are the docstring of its file; code, arrays and costs come from the table; the check and its
picture are run when the book is built; the figures of its kernels are the newest committed ones, or fresh ones.
"""
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from ...ops.spec import Spec
from ...ops.table import FILES, OPS, functions
from ...workbench.kernel.template import GPT2, moved, prototype
from .blocks import Block, Box, Chapter, Code, Heading, Paragraph, Picture, Span, Spans, Table, plain
from .check import checked_rows, error_picture
from .derivation import blocks_of, words
from .exercises import exercises_of
from .listings import NO_SOURCES, ROOT, code_of, is_checkout, lines_of, pieces
from .markup import inline, inline_row
from .measurements import measurement_blocks
from .motivation import motivation

KINDS = {"pair": "A pair of functions, forward and backward.", "decode": "Forward only: nothing is trained through it.",
         "reduce": "An array becomes one number; it has no backward.", "update": "It changes its arrays in place."}


FIGURES = (("analytic", "+.6e"), ("numeric", "+.6e"), ("error", ".1e"), ("bar", ".1e"))


def reading_order() -> list[str]:
    """The ops, each after those whose files its own names; of several the simplest: by folder, then by the length of
    the derivation."""
    def weight(name: str) -> tuple:
        module = FILES[name]
        return module.__name__.count("."), OPS[name].kind != "pair", OPS[name].composite, len(module.__doc__ or "")

    left, found = sorted(OPS, key=weight), list[str]()
    before = {name: set(re.findall(r"\b(\w+)\.py\b", FILES[name].__doc__ or "")) & set(OPS) - {name} for name in left}
    while left:
        found.append(next((name for name in left if before[name] <= set(found)), left[0]))
        left.remove(found[-1])
    return found


def op_chapter(name: str, live: dict | None = None, prose: Sequence[str] = ()) -> Chapter:
    """The chapter of an op of the table. live: fresh measurements, by op; prose: the chapters of the book that are
    files, of which those that refer to this op are named."""
    spec, label = OPS[name], label_of(name)
    head, _, rest = inspect.cleandoc(FILES[name].__doc__ or "").partition("\n")
    title = words(re.split(r"[:,.]", head)[0])
    blocks: list[Block] = [
        Paragraph([Span("emphasis", words(head)), *(Span("index", entry) for entry in
                                                     (index_entry(plain(title)), name))]),
        Paragraph([Span("text", KINDS[spec.kind] + " ")] + where_it_is(spec)),
        Heading(2, inline("Motivation"), f"{label}-motivation"), *motivation(spec, label, prose),
        Heading(2, inline("At a glance"), f"{label}-glance"), *at_a_glance(spec, label),
        Heading(2, inline("Derivation"), f"{label}-derivation"),
        *blocks_of("\n" + rest.strip("\n"), f"{label}-eq"),
        Heading(2, inline("The code"), f"{label}-code"), *code(spec)]
    if spec.kind == "pair":
        blocks += [Heading(2, inline("The check"), f"{label}-check"), *check(spec, label)]
    blocks += [Heading(2, inline("Kernels and their speed"), f"{label}-kernels"), *kernels(spec, label, live),
               Heading(2, inline("Exercises"), f"{label}-exercises"), *exercises_of(spec)]
    return Chapter(label, title, blocks)


def index_entry(title: str) -> str:
    """A chapter's title as it stands in an index: in small letters, but for names such as AdamW."""
    title = title.removeprefix("The ")
    return title if title.split()[0][1:] != title.split()[0][1:].lower() else title[0].lower() + title[1:]


def label_of(op: str) -> str:
    return op.replace("_", "-")


def path_of(spec: Spec) -> Path:
    """The op's file."""
    return Path(inspect.getfile(FILES[spec.name]))


def where_it_is(spec: Spec) -> Spans:
    """Its files, and what is differentiated."""
    gradients = ", ".join(f"`{name}`" for name in spec.differentiable)
    text = f"The op is `{path_of(spec).relative_to(ROOT).as_posix()}`"
    if spec.kind == "pair":
        text += f"; its backward returns the gradient of {gradients}"
    if spec.composite:
        text += "; it is made of smaller ops, and takes them from the namespace `ops` that it is given"
    return inline(text + ".")


def at_a_glance(spec: Spec, label: str) -> list[Block]:
    """The arrays of each function with their shapes, and what a call costs at the sizes of GPT-2."""
    names = [function.replace(f"{spec.name}_", "") for function in functions(spec)]
    shapes: dict[str, str] = {}
    roles: dict[str, list[str]] = {}
    for place, signature in enumerate(spec.signatures()):
        for role, arrays in (("read", signature.inputs), ("written", signature.results)):
            for array in arrays:
                shapes[array.name] = ", ".join(array.shape)
                roles.setdefault(array.name, ["–"] * len(names))[place] = "added to" if array.added else role
    rows = [inline_row("array", "shape", *names)]
    rows += [inline_row(f"`{name}`", f"({shapes[name]})", *roles[name]) for name in shapes]
    sizes = ", ".join(f"{key} = {value:,}" for key, value in GPT2.sampled().items())
    return [Table(rows, [False] * len(rows[0]), inline(f"The arrays of `{spec.name}`, as its C kernels see them."),
                  f"{label}-arrays"),
            Table(cost_rows(spec), [False, True, True, True],
                  inline(f"What a call costs at the sizes of GPT-2 ({sizes}, float32): FLOPs from the op table, bytes "
                         f"that must move at least, and their ratio, the arithmetic intensity."), f"{label}-costs")]


def cost_rows(spec: Spec) -> list[list[Spans]]:
    """FLOPs, bytes and their ratio of each function."""
    rows = [inline_row("function", "MFLOP", "MB", "FLOPs a byte")]
    for function, signature, flops in zip(functions(spec), spec.signatures(), spec.flops(GPT2)):
        size = moved(spec.name, signature, GPT2)
        rows.append(inline_row(f"`{function}`", f"{flops / 1e6:,.2f}", f"{size / 1e6:,.2f}", f"{flops / size:,.2f}"))
    return rows


def code(spec: Spec) -> list[Block]:
    """The op's file below its docstring, function by function, with the numbers of its lines."""
    path = path_of(spec)
    shown = path.relative_to(ROOT).as_posix()
    blocks: list[Block] = [Paragraph(inline(
        f"All of `{shown}` below its derivation, in the order of the file; the numbers are those of its lines."
        + "".join(f"{{index:{function}}}" for function in functions(spec))))]
    return blocks + [code_of(shown, *lines) for _, lines in pieces(path, functions(spec))]


def check(spec: Spec, label: str) -> list[Block]:
    """What gradcheck finds, and the error of the difference quotient against its step."""
    checked = checked_rows(spec.name)
    rows = [inline_row("gradient", "method", "numbers", "worst element", "backward", "measured", "error", "error bar")]
    rows += [inline_row(f"`{row['name']}`", row["method"], f"{row['checked']:,}", place(row["index"]),
                        *(f"{row[key]:{form}}".replace("-", "−") for key, form in FIGURES)) for row in checked]
    failed = sum(not row["passed"] for row in checked)
    verdict = "All of them pass" if not failed else f"{failed} of them FAIL"
    return [Paragraph(inline(
        "The backward is compared with numerical derivatives of the forward on the sample inputs of the table, in "
        f"float64, when this book is built. {verdict}: no error exceeds the error bar of its measurement. "
        f"`minillm gradcheck --op {spec.name}` repeats it.{{index:gradient check!{spec.name}}}")),
        Table(rows, [False, False, *[True] * 6], inline(
            f"The worst element of each gradient of `{spec.name}`, by central differences and, where the forward takes "
            "complex numbers, by the complex step."), f"{label}-checked"),
        Picture(error_picture(spec.name), inline(
            "Error of the central difference against its step. From the right the truncation error falls with the "
            "square of the step, where the op is not linear in the input; from the left comes the rounding error "
            "(dotted: its bound). They meet far below any real mistake."), f"{label}-error")]


def place(index: tuple[int, ...]) -> str:
    """(2, 0, 5)"""
    return f"({', '.join(map(str, index))})" if index else "all"


def kernels(spec: Spec, label: str, live: dict | None) -> list[Block]:
    """Which kernels exist, how fast they are, and the C++ of the op's own files."""
    blocks: list[Block] = []
    if not spec.kernels:
        blocks.append(Paragraph(inline("No kernel is compiled for this op: it runs on NumPy, or is made of ops that "
                                       "have kernels.")))
    else:
        names = ", ".join(f"`{name}`" for name in ["numpy", *spec.kernels] if not name.startswith("cudasim"))
        blocks.append(Paragraph(inline(f"`select` takes any of {names}. A C kernel of one's own has this signature:")))
        blocks.append(Code("\n".join(wrapped(prototype(function, signature)) for function, signature
                                     in zip(functions(spec), spec.signatures())), "cpp"))
    blocks += measurement_blocks(spec.name, label, live)
    return blocks + sources(spec)


def wrapped(text: str) -> str:
    """A C prototype over several lines."""
    name, _, arguments = text.partition("(")
    lines, indent = [name + "("], " " * 4
    for argument in arguments.split(", "):
        if len(lines[-1]) + len(argument) > 96:
            lines.append(indent)
        lines[-1] += argument + ", "
    return "\n".join(line.rstrip() for line in lines).rstrip(",") + ";"


def sources(spec: Spec) -> list[Block]:
    """The C++ file that has the op's name; a folder of that name is in the appendix."""
    path = ROOT / "csrc" / "cpu" / f"{spec.name}.cpp"
    if "cpu" not in spec.kernels:
        return []
    if not is_checkout():
        return [Box("Not here", words(NO_SOURCES.format("the kernel's C++")))]
    blocks: list[Block] = []
    if path.is_file():
        blocks.append(code_of(path.relative_to(ROOT).as_posix(), *lines_of(path, "")))
    if (ROOT / "csrc" / "cpu" / spec.name).is_dir():
        blocks.append(Paragraph(inline(f"The files of `csrc/cpu/{spec.name}/` stand in {{ref:kernels-cpu}}.")))
    return blocks
