"""`minillm plan`: what a model will take, before it is trained."""
import json
import re
from argparse import Namespace
from typing import Any

from ..config import ModelConfig, TrainConfig, parse_setting
from . import Commands, add_json, check_at_least, main_command, printer

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def plan(args: Namespace) -> int:
    from ..workbench.cluster import network
    from ..workbench.plan import Question, measured_speed
    from ..workbench.plan import plan as make
    from ..workbench.plan_text import describe
    check_at_least(args, processes=1, price=0, tokens=1, hours=0.001)
    model, train = settings(args)
    if args.hours:
        for_hours(args, train)
        return 0
    if args.verify:
        return check(args, model, train)
    net = network(args.network) if args.network else None
    here = measured_speed(model, train) if args.here or net else None
    found = make(Question(model, train, int(args.tokens or 0), args.processes, amount("--memory", args.memory),
                          args.price, here, net))
    say = printer(args.json)
    say(describe(found))
    if args.plot:
        from ..workbench.plan_plot import plot_plan
        say(f"picture     {plot_plan(found, args.plot)}")
    if args.json:
        print(json.dumps(found))
    return 0


def check(args: Namespace, model: ModelConfig, train: TrainConfig) -> int:
    """One real step against its plan; exit code 1 where they differ."""
    from ..workbench.plan_text import describe_check
    from ..workbench.plan_verify import verify
    found = verify(model, train)
    printer(args.json)(describe_check(found))
    if args.json:
        print(json.dumps(found))
    return 0 if found["right"] else 1


def for_hours(args: Namespace, train: TrainConfig) -> None:
    """Tokenize as `minillm train` would, into --out, and plan for the hours."""
    from ..recipes.train_on_files import shards_for
    from ..workbench.plan_hours import describe_hours, plan_hours
    if not args.data or not args.out:
        raise ValueError("--hours needs --data, what to train on, and --out, the run to plan for")
    say = printer(args.json)
    shards = shards_for(args.data, args.out, args.tokenizer, args.vocab_size)
    found = plan_hours(args.hours, shards, train.backend, train.seed, say)
    say(describe_hours(found, args.data, args.out))
    if args.json:
        print(json.dumps(found))


def settings(args: Namespace) -> tuple[ModelConfig, TrainConfig]:
    """The preset, then --set."""
    from ..models.load import fresh_config
    from ..workbench.plan import PRESETS
    model: dict[str, Any] = dict(PRESETS[args.preset])
    trained: dict[str, Any] = {}
    for setting in args.set:
        table, key, value = parse_setting(setting)
        (model if table == "model" else trained)[key] = value
    return fresh_config(model), TrainConfig(**trained)


def amount(option: str, text: str | None) -> int:
    """12GB -> 12e9, 12GiB -> 12 * 2^30 bytes, nothing -> 0. Raises ValueError."""
    if text is None:
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise ValueError(f"{option} must be a size such as 12GB or 800MiB: got {text!r}")
    return int(float(found[1]) * UNITS[found[2]])


def add(commands: Commands) -> None:
    p = main_command(commands, "plan", plan, "minillm plan --preset 124M --memory 12GB --set train.batch_size=4")
    p.add_argument("--preset", choices=["124M", "1.5B", "7B"], default="124M", help="shape (default: %(default)s)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as n_layer=6; repeatable")
    p.add_argument("--tokens", type=float, help="to train on (default: 20 for each parameter)")
    p.add_argument("--processes", type=int, default=1, help="that train together, sharing moments (default: 1)")
    p.add_argument("--memory", metavar="SIZE", help="such as 12GB: what is the largest that fits?")
    p.add_argument("--price", type=float, help="dollars an hour, in place of the table's")
    p.add_argument("--here", action="store_true", help="measure this machine's speed, too")
    p.add_argument("--network", metavar="SPEED,LATENCY", help="between machines like this one, such as 10Gbit,50us: "
                   "how much faster are 2 to 64 of them?")
    p.add_argument("--plot", metavar="FILE.png", help="write a picture of the plan, too")
    p.add_argument("--hours", type=float, help="choose size, tokens, batch and learning rate for these hours here, and "
                   "predict the loss, from small runs on --data")
    p.add_argument("--data", nargs="+", metavar="PATH", help="with --hours: what to train on")
    p.add_argument("--out", help="with --hours: the run directory to plan for; the data is tokenized there")
    p.add_argument("--tokenizer", help="with --hours: directory with tokenizer.json (default: train one on the data)")
    p.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer to train (default: %(default)s)")
    p.add_argument("--verify", action="store_true", help="run one real step: its FLOPs and bytes are those planned?")
    add_json(p)
