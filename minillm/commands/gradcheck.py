"""`minillm gradcheck`: every backward, or one of your own, against numeric derivatives."""
import json
import sys
from argparse import Namespace

from . import Commands, add_json, check_at_least, main_command


def gradcheck(args: Namespace) -> int:
    """0: right, 1: wrong, 2: the pair in FILE.py cannot be called as asked."""
    if args.precision:
        return precision(args)
    if args.pair is None:
        return gradcheck_ops(args)
    try:
        return gradcheck_pair(args)
    except (ValueError, OSError, ImportError, TypeError) as error:
        print(f"minillm gradcheck: {error}", file=sys.stderr)
        return 2


def gradcheck_ops(args: Namespace) -> int:
    from ..workbench.gradients import curves_of_op, gradcheck_page, gradcheck_table
    from ..workbench.plot import plot_curves
    if args.plot and len(args.op or []) != 1:
        raise ValueError("--plot draws one op, or a pair of your own: add --op NAME")
    rows = gradcheck_table(args.op, args.backend, args.model, args.method, args.dtype)
    if args.plot:
        plot_curves(args.plot, curves_of_op(args.op[0], args.backend or "numpy"))
    print(json.dumps(rows, indent=1) if args.json else gradcheck_page(rows))
    return int(not all(row["passed"] for row in rows))


def precision(args: Namespace) -> int:
    from ..workbench.precision import precision_page, precision_table
    rows = precision_table(args.op, args.backend)
    print(json.dumps(rows, indent=1) if args.json else precision_page(rows))
    return int(not all(row["passed"] for row in rows))


def gradcheck_pair(args: Namespace) -> int:
    """A pair of the user's."""
    from ..gradcheck import as_dict, error_curve
    from ..gradcheck import gradcheck as check
    from ..workbench.pairs import inputs_of, load_pair
    from ..workbench.plot import plot_curves
    if args.op or args.model or args.backend:
        raise ValueError("a pair of your own goes without --op, --model and --backend")
    check_at_least(args, samples=1)
    forward, backward, module = load_pair(args.pair)
    inputs = inputs_of(module, forward, args.inputs, args.seed, args.dtype)
    wrt = args.wrt.split(",") if args.wrt else None
    rows = check(forward, backward, inputs, method=args.method, raise_exception=False, samples=args.samples,
                 seed=args.seed, wrt=wrt, second_order=args.second_order)
    if args.plot:
        names = [name for name, value in inputs.items() if getattr(getattr(value, "dtype", None), "kind", "") == "f"
                 and (wrt is None or name in wrt)]
        shown = {row.name for row in rows} & set(names)
        plot_curves(args.plot, {name: error_curve(forward, backward, inputs, names, name) for name in names
                                if name in shown})
    print(json.dumps([as_dict(row) for row in rows], indent=1) if args.json else "\n".join(map(str, rows)))
    return int(not all(row.passed for row in rows))


def add(commands: Commands) -> None:
    p = main_command(commands, "gradcheck", gradcheck, "minillm gradcheck --op layernorm --backend cpu\n"
                     'example: minillm gradcheck mine.py:forward,backward --inputs "x=(3,5) weight=(5,)"')
    p.add_argument("pair", nargs="?", metavar="FILE.py:forward,backward", help="a pair of your own")
    p.add_argument("--inputs", help='its inputs: "x=(3,5) eps=1e-5 ids=int(4,)<10", normal numbers of a shape, '
                                    "constants, integers below a bound (default: a function inputs() in the file)")
    p.add_argument("--wrt", help="names of the inputs that have a gradient, with commas (default: all of floats)")
    p.add_argument("--samples", type=int, help="elements per input to check (default: all of a small one)")
    p.add_argument("--second-order", action="store_true", help="also whether the backward's derivative is symmetric")
    p.add_argument("--plot", metavar="FILE.png", help="draw the error against the step (needs matplotlib)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--op", action="append", help="only this op; repeatable (default: all of the op table)")
    p.add_argument("--backend", help="numpy, cpu, cpu/VARIANT, ... (default: everything that is built)")
    p.add_argument("--model", action="store_true", help="check a whole small GPT, every parameter tensor")
    p.add_argument("--method", choices=["central", "complex"], help="default: central; reference ops also complex")
    p.add_argument("--precision", action="store_true",
                   help="compare float32 and bfloat16 gradients with float64, beside a bound of their rounding errors")
    p.add_argument("--dtype", choices=["float64", "float32"], default="float64",
                   help="of --inputs; ops are checked in float64")
    add_json(p)
