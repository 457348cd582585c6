"""`minillm gradcheck`: every backward against finite differences."""
import json
from argparse import Namespace

from . import Commands, add_json, command


def gradcheck(args: Namespace) -> int:
    if args.precision:
        return precision(args)
    from ..workbench.gradients import gradcheck_page, gradcheck_table
    rows = gradcheck_table(args.op, args.backend, args.model, args.method, args.dtype)
    print(json.dumps(rows, indent=1) if args.json else gradcheck_page(rows))
    return int(not all(row["passed"] for row in rows))


def precision(args: Namespace) -> int:
    from ..workbench.precision import precision_page, precision_table
    rows = precision_table(args.op, args.backend)
    print(json.dumps(rows, indent=1) if args.json else precision_page(rows))
    return int(not all(row["passed"] for row in rows))


def add(commands: Commands) -> None:
    p = command(commands, "gradcheck", gradcheck, "check every backward against finite differences",
                "minillm gradcheck --op layernorm --backend cpu")
    p.add_argument("--op", action="append", help="only this op; repeatable (default: all of the op table)")
    p.add_argument("--backend", help="numpy, cpu, cpu/VARIANT, ... (default: everything that is built)")
    p.add_argument("--model", action="store_true", help="check a whole small GPT, every parameter tensor")
    p.add_argument("--method", choices=["central", "complex"], help="default: central; reference ops also complex")
    p.add_argument("--dtype", choices=["float64"], default="float64", help="finite differences need float64")
    p.add_argument("--precision", action="store_true",
                   help="compare float32 and bfloat16 gradients with float64, beside a bound of their rounding errors")
    add_json(p)
