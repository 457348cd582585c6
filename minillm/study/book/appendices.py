"""The appendices, each made of the chapters before it: answers, code, references, index."""
from collections.abc import Callable, Iterator
from pathlib import Path

from .blocks import Block, Box, Chapter, Exercise, Heading, Index, Paragraph, Span
from .listings import NO_SOURCES, ROOT, code_of, is_checkout, lines_of
from .markup import inline
from .references import entry, read_sources

CPU = ("attention", "linear", "gemm", "simd", "isa", "memory")


def answers(done: list[Chapter]) -> Chapter:
    """The answers of all exercises, chapter by chapter."""
    blocks: list[Block] = [Paragraph(inline("Each number leads back to its question."))]
    for chapter in done:
        exercises = [block for block in chapter.blocks if isinstance(block, Exercise)]
        if exercises:
            blocks.append(Heading(2, chapter.title))
        for exercise in exercises:
            first, *rest = exercise.answer
            number = [Span("see", (f"exercise-{exercise.number}", exercise.number)), Span("text", "  ")]
            lead = first.spans if isinstance(first, Paragraph) else []
            blocks.append(Paragraph([Span("strong", number), *lead], f"answer-{exercise.number}"))
            blocks += rest if lead else [first, *rest]
    return Chapter("answers", inline("Answers to the exercises"), blocks)


def code(done: list[Chapter]) -> Chapter:
    """The whole model: forward, backward, training step, sampling."""
    files = ("models/gpt2.py", "models/params.py", "models/kv_cache.py", "train/optim.py", "train/schedule.py",
             "train/loop.py", "generation/sampling.py", "gradcheck/measure.py", "gradcheck/search.py")
    return Chapter("code", inline("The model and its training, whole"), list(file_sections(
        [ROOT / "minillm" / file for file in files])))


def kernels_cpu(done: list[Chapter]) -> Chapter:
    """The C++ that more than one op uses, and the ladders."""
    folders = [ROOT / "csrc" / "cpu" / folder for folder in CPU]
    return Chapter("kernels-cpu", inline("CPU kernels: ladders and what they share"), sources(folders))


def kernels_cuda(done: list[Chapter]) -> Chapter:
    """The CUDA kernels."""
    return Chapter("kernels-cuda", inline("CUDA kernels"), sources([ROOT / "csrc" / "cuda" / "attention"]))


def references(done: list[Chapter]) -> Chapter:
    """The bibliography."""
    return Chapter("references", inline("References"), [entry(key, source) for key, source in read_sources().items()])


def index(done: list[Chapter]) -> Chapter:
    return Chapter("subject-index", inline("Index"), [Index()])


APPENDICES: dict[str, Callable[[list[Chapter]], Chapter]] = {
    "answers": answers, "code": code, "kernels-cpu": kernels_cpu, "kernels-cuda": kernels_cuda,
    "references": references, "index": index}


def sources(folders: list[Path]) -> list[Block]:
    """All files of some folders of C++, or that they are not here."""
    if not is_checkout():
        return [Box("Not here", [Span("text", NO_SOURCES.format("this appendix"))])]
    return list(file_sections([path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]))


def file_sections(paths: list[Path]) -> Iterator[Block]:
    """A section for each file."""
    for path in paths:
        shown = path.relative_to(ROOT).as_posix()
        yield Heading(2, [Span("code", shown)])
        yield code_of(shown, *lines_of(path, ""))
