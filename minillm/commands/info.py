"""`minillm info`: versions, the CPU, what is built, what is not and why."""
import json

from . import command


def info(args):
    from ..kernels.info import gather, page
    print(json.dumps(gather(), indent=1) if args.json else page(gather()))


def add(commands):
    p = command(commands, "info", info, "versions, CPU features, what is built, what is not and why", "minillm info")
    p.add_argument("--json", action="store_true", help="machine-readable output")
