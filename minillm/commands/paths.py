"""Where to begin: four readers, five commands each, for `minillm --help` and README.md."""

PATHS: dict[str, tuple[tuple[str, str], ...]] = {
    "student": (
        ("python -m minillm.micro README.md", "all of it in one file: read minillm/micro.py first"),
        ("minillm learn linear_backward -o my.py", "exercises in order: write the backward yourself"),
        ("minillm learn check my.py", "judges it in stages, and says which term is missing"),
        ('minillm trace runs/mine -p "the cat sat" -o trace.html', "every number of a training step, as a page"),
        ("minillm book -o minillm.pdf", "the whole as a book: theory, derivations, code, exercises")),
    "kernel writer": (
        ("minillm kernel list", "what the C functions of each op take"),
        ("minillm kernel new layernorm -o own.c", "a file to begin with; your own functions fit as they are"),
        ("minillm kernel check my.c --op layernorm", "values and gradients at every size, in guarded memory"),
        ("minillm kernel bench my.c --op layernorm", "beside NumPy, our C++ and PyTorch, every call checked"),
        ("python -m benchmarks attention --ladder", "our own steps, from naive to tuned, against the roofline")),
    "engineer": (
        ("minillm plan --preset 124M --memory 12GB", "FLOPs, memory, what fits, hours and money, before training"),
        ("minillm train --data my_texts/ --out runs/mine", "resumes to the same bits; warns while it runs"),
        ("minillm doctor runs/mine", "why a run went wrong; verify: whether it is sound"),
        ("minillm eval runs/mine --data held_out/", "with confidence intervals; sft, dpo and grpo come between"),
        ("minillm serve runs/mine --port 8000", "OpenAI's protocol and a chat page; quantize makes it small")),
    "teacher": (
        ("minillm book --html book", "chapters to read in class, each with exercises and answers"),
        ("minillm learn solution layernorm_backward", "the derivation in steps, and code that passes"),
        ("minillm learn grade submissions/ --json", "judges a whole class; --csv: a line for each student"),
        ('minillm trace runs/mine -p "the cat sat" -o lesson.html', "attention, gradients, blanks to fill in"),
        ("minillm gradcheck --op attention", "any backward against numeric derivatives")),
}


def article(reader: str) -> str:
    return f"{'an' if reader[0] in 'aeiou' else 'a'} {reader}"


def described() -> str:
    """The paths as the end of `minillm --help`."""
    parts = []
    for reader, steps in PATHS.items():
        parts.append(f"for {article(reader)}:")
        parts += [f"  {command:<57}  {what}" for command, what in steps]
    return "\n".join(parts) + "\neach command has a --help of its own, with an example"
