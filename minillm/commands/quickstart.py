"""`minillm quickstart`: a GPT trained on a bundled corpus, or every stage from raw text to alignment with --full."""
from argparse import Namespace

from . import Commands, add_common, main_command, print_json, printer


def quickstart(args: Namespace) -> None:
    if args.full:
        from ..recipes.story import story
        results = story(args.out or "runs/full", args.minutes or 12.0, args.seed, args.backend, say=printer(args.json))
    else:
        from ..recipes.quickstart import quickstart as run
        results = run(args.corpus, args.out or "runs/quickstart", args.minutes or 3.5, args.steps, args.seed,
                      args.backend, printer(args.json))
    print_json(args, results)


def add(commands: Commands) -> None:
    p = main_command(commands, "quickstart", quickstart, "minillm quickstart --minutes 2")
    p.add_argument("--corpus", choices=["docs", "stories"], default="docs",
                   help="docs: Python's own documentation; stories: a grammar of known entropy")
    p.add_argument("--full", action="store_true", help="the whole way: clean, deduplicate, pretrain, fine-tune, align, "
                   "evaluate, distil, speculate, with one report (up to 20 minutes)")
    p.add_argument("--out", help="run directory (default: runs/quickstart, or runs/full)")
    p.add_argument("--minutes", type=float, help="time for training (default: 3.5, or 12 with --full)")
    p.add_argument("--steps", type=int, help="a fixed number of steps instead of a time")
    add_common(p, json=True)
