"""`minillm distill`: a draft for speculative decoding, or a target and its draft in one go."""
from argparse import Namespace

from . import Commands, add_common, main_command, print_json, printer

EXAMPLE = """\
minillm distill --out runs/pair
minillm distill runs/mine --out runs/draft                      # for a model that is there"""


def distill(args: Namespace) -> None:
    from ..recipes import draft_pair
    say = printer(args.json)
    check_arguments(args)
    if args.target is None:
        results = draft_pair.make_pair(
            args.corpus or "stories", args.out, args.minutes or 15.0, args.steps, args.draft_tokens, args.seed,
            args.backend, say, n_layer=args.layers, n_embd=args.width, temperature=args.temperature,
            weight=args.weight)
    else:
        results = draft_pair.make_draft(
            args.target, args.out, args.data, args.layers, args.width, args.temperature, args.weight,
            args.minutes or 5.0, args.steps, args.draft_tokens, args.seed, args.backend, say)
    print_json(args, results)


def check_arguments(args: Namespace) -> None:
    """Numbers that argparse lets through. The loss checks its own, but only once everything is loaded."""
    for name in ("minutes", "steps", "layers", "width", "draft_tokens"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0: got {value}")
    if args.target is None and args.data:
        raise ValueError("--data needs a TARGET: without one both models learn the bundled corpus")
    if args.target is not None and args.corpus:
        raise ValueError("--corpus is for a pair made without TARGET: use --data to say what a draft for TARGET "
                         "learns on")


def add(commands: Commands) -> None:
    p = main_command(commands, "distill", distill, EXAMPLE)
    p.add_argument("target", nargs="?", metavar="TARGET", help="run directory of the large model (default: train one "
                   "of 30M parameters into OUT/target, its draft into OUT/draft)")
    p.add_argument("--out", required=True, help="run directory of the draft, or of both")
    p.add_argument("--data", nargs="+", metavar="PATH", help="what to learn on (default: what the target learned on)")
    p.add_argument("--corpus", choices=["docs", "stories"], help="without TARGET (default: stories)")
    p.add_argument("--minutes", type=float,
                   help="of training (default: 5; without TARGET 15, two thirds of them the target's)")
    p.add_argument("--steps", type=int, help="a fixed number of steps instead of a time")
    p.add_argument("--layers", type=int, default=2, help="of the draft")
    p.add_argument("--width", type=int, default=192, help="of the draft, n_embd")
    p.add_argument("--temperature", type=float, default=1.0, help="of the loss; above 1 improbable tokens count more")
    p.add_argument("--weight", type=float, default=0.9, help="of the teacher's distribution against the text")
    p.add_argument("--draft-tokens", type=int, default=4, metavar="K", help="a pass, in the report")
    add_common(p, json=True)
