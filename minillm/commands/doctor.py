"""`minillm doctor`: why a run went wrong, and what to change."""
import json
import sys
from argparse import Namespace

from . import Commands, add_json, directory, main_command


def doctor(args: Namespace) -> int:
    """0: healthy, 1: something was found, 2: no run that can be read."""
    from ..workbench.doctor import doctor_page, examine
    try:
        results = examine(args.run, args.data)
    except (ValueError, OSError) as error:
        print(f"minillm doctor: {error}", file=sys.stderr)
        return 2
    print(json.dumps(results, indent=1) if args.json else doctor_page(results))
    return int(not results["healthy"])


def add(commands: Commands) -> None:
    p = main_command(commands, "doctor", doctor, "minillm doctor runs/mine")
    p.add_argument("run", type=directory, help="run directory, which is only read")
    p.add_argument("--data", metavar="DIR", help="token shards it was pretrained on, where the run does not say")
    add_json(p)
