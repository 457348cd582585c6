"""`minillm trace`: every number of one training step and one decoding step of a model, as a page."""
import json
from argparse import Namespace
from pathlib import Path

from ..progress import Progress
from . import Commands, add_backend, directory, main_command


def trace(args: Namespace) -> int:
    from ..storage.atomic import atomic_write
    from ..study.trace.page import page
    from ..study.trace.run import record_run
    out = Path(args.out)
    if out.is_dir() or args.out.endswith("/") or not out.absolute().parent.is_dir():     # said before the work
        raise ValueError(f"--out {out}: it must be the name of a file in a directory that exists")
    progress = Progress("tracing", "%")
    recorded = record_run(args.run, args.prompt, args.backend, progress)
    progress.close()
    as_json = out.suffix == ".json"
    text = json.dumps(recorded, allow_nan=False, separators=(",", ":")) if as_json else page(recorded)
    with atomic_write(out) as file:
        file.write(text)
    print(f"{out}: {len(recorded['calls'])} calls on {len(recorded['tokens'])} tokens, {len(text) / 1e6:.1f} MB"
          + "; open it in a browser" * (not as_json))
    return 0


def add(commands: Commands) -> None:
    p = main_command(commands, "trace", trace, 'minillm trace runs/mine -p "the cat sat" -o trace.html')
    p.add_argument("run", type=directory, metavar="RUN",
                   help="run directory, or one of transformers with a tokenizer; it is only read")
    p.add_argument("-p", "--prompt", required=True, help="text to learn from and to continue")
    p.add_argument("-o", "--out", default="trace.html", help="file to write; NAME.json: the record as JSON instead")
    add_backend(p)
