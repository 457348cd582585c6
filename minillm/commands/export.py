"""`minillm export`: a model in the form that other programs read, or theirs in ours."""
from argparse import Namespace
from pathlib import Path

from . import Commands, add_json, main_command, print_json, printer

FORMS = ("f32", "f16", "bf16", "q8_0", "q4_0")


def export(args: Namespace) -> None:
    say = printer(args.json)
    stem = args.model.rstrip("/").removesuffix(".gguf")
    out = Path(args.out or (f"{stem}-{args.gguf}.gguf" if args.gguf else f"{stem}-transformers"))
    from ..models.export import export_directory, export_gguf
    results = export_gguf(args.model, out, args.gguf) if args.gguf else export_directory(args.model, out)
    say(f"{results['tensors']} tensors ({results['types']}), {results['bytes'] / 1e6:,.1f} MB: {out}")
    print_json(args, results)


def add(commands: Commands) -> None:
    p = main_command(commands, "export", export, "minillm export runs/mine --gguf q8_0")
    p.add_argument("model", help="run directory, a transformers directory, or a GGUF file")
    p.add_argument("-o", "--out", help="file or directory to write (default: MODEL-FORM.gguf, MODEL-transformers)")
    p.add_argument("--gguf", nargs="?", const="f16", choices=FORMS, metavar="FORM", help="one GGUF file, its matrices "
                   f"in one of {', '.join(FORMS)} (f16 if none is named); without it: a transformers directory")
    add_json(p)
