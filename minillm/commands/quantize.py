"""`minillm quantize`: weight-only quantization to int8, int4 or bfloat16, and its cost in bits per byte."""
import json
from argparse import Namespace

from ..progress import Progress
from . import Commands, add_backend, add_json, directory, main_command


def quantize(args: Namespace) -> None:
    from ..evaluate.quantization import quantization_page, quantize_directory
    results = quantize_directory(args.model, args.out, args.weights, args.group, args.data, args.backend,
                                 Progress("bits per byte", "document"), args.arithmetic)
    print(json.dumps(results, indent=1) if args.json else quantization_page(results))


def add(commands: Commands) -> None:
    p = main_command(commands, "quantize", quantize, "minillm quantize runs/mine -o runs/mine-int8 --weights int8")
    p.add_argument("model", type=directory, help="run directory, or one of transformers")
    p.add_argument("-o", "--out", required=True, help="directory for the result, which generate and serve read")
    p.add_argument("--weights", choices=["int8", "int4", "bfloat16"], default="int8", help="(default: %(default)s)")
    p.add_argument("--group", type=int, default=0, metavar="N", help="inputs of a channel that share a scale, as 64; "
                   "smaller is more exact and larger on disk (default: for int8 the whole channel, for int4 32)")
    p.add_argument("--arithmetic", choices=["integer", "float"], default="integer", help="of "
                   "matmuls with int8 and int4 matrices: integer rounds activations, too, and is faster; float does "
                   "not (default: %(default)s)")
    p.add_argument("--data", nargs="+", metavar="PATH", help="text to measure the change in bits per byte on, the "
                   "first 300 kB (default: the run's own validation split)")
    add_backend(p)
    add_json(p)
