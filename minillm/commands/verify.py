"""`minillm verify`: the properties that every model must have, as PASS or FAIL with figures."""
import json
from argparse import Namespace

from ..progress import Progress
from . import Commands, add_backend, add_json, directory, main_command


def verify(args: Namespace) -> int:
    from ..workbench.verify import verdict_page, verify
    progress = Progress("verifying", "check")
    rows = verify(args.model, args.backend, progress)
    progress.close()
    print(json.dumps(rows, indent=1) if args.json else verdict_page(rows))
    return int(any(row["passed"] is False for row in rows))


def add(commands: Commands) -> None:
    p = main_command(commands, "verify", verify, "minillm verify runs/mine")
    p.add_argument("model", type=directory, help="run directory, or one of transformers; it is only read")
    add_backend(p)
    add_json(p)
