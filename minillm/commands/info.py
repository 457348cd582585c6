"""`minillm info`: versions, the CPU, what is built, what is not and why."""
import json
from argparse import Namespace

from . import Commands, add_json, command


def info(args: Namespace) -> None:
    from ..kernels.info import info_page, installation
    print(json.dumps(installation(), indent=1) if args.json else info_page(installation()))


def add(commands: Commands) -> None:
    p = command(commands, "info", info, "versions, CPU features, what is built, what is not and why", "minillm info")
    add_json(p)
