"""`minillm quantize`: weight-only quantization to int8, int4 or bfloat16, and its cost in bits per byte."""
import json
from argparse import Namespace

from ..progress import Progress
from . import Commands, add_backend, add_json, command, directory


def quantize(args: Namespace) -> None:
    from ..evaluate.quantization import quantization_page, quantize_directory
    results = quantize_directory(args.model, args.out, args.weights, args.group, args.data, args.backend,
                                 Progress("bits per byte", "document"))
    print(json.dumps(results, indent=1) if args.json else quantization_page(results))


def add(commands: Commands) -> None:
    p = command(commands, "quantize", quantize, "matrices in int8, int4 or bfloat16: faster, in less memory",
                "minillm quantize runs/mine -o runs/mine-int8 --weights int8")
    p.add_argument("model", type=directory, help="run directory, or one of transformers")
    p.add_argument("-o", "--out", required=True, help="directory for the result, which generate and serve read")
    p.add_argument("--weights", choices=["int8", "int4", "bfloat16"], default="int8", help="(default: %(default)s)")
    p.add_argument("--group", type=int, default=0, metavar="N", help="inputs of a channel that share a scale, as 64; "
                   "smaller is more exact and larger on disk (default: for int8 the whole channel, for int4 32)")
    p.add_argument("--data", nargs="+", metavar="PATH", help="text to measure the change in bits per byte on, the "
                   "first 300 kB (default: the run's own validation split)")
    add_backend(p)
    add_json(p)
