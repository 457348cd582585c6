"""`minillm quantize`: a model in a quarter or half of the bytes, and what that costs."""
import json

from ..progress import Progress
from . import command


def run(args):
    from ..evaluate.quantization import quantization_page, quantize_directory
    results = quantize_directory(args.model, args.out, args.weights, args.group, args.data, args.backend,
                                 Progress("bits per byte", "document"))
    print(json.dumps(results, indent=1) if args.json else quantization_page(results))


def add(commands):
    p = command(commands, "quantize", run, "store a model's matrices in int8 or bfloat16: faster, in less memory",
                "minillm quantize runs/mine -o runs/mine-int8 --weights int8")
    p.add_argument("model", help="run directory, or a GPT-2 directory")
    p.add_argument("-o", "--out", required=True, help="directory for the result, which generate and serve read")
    p.add_argument("--weights", choices=["int8", "bfloat16"], default="int8", help="(default: %(default)s)")
    p.add_argument("--group", type=int, default=0, metavar="N", help="int8: inputs of a channel that share a scale, as "
                   "64; smaller is more exact and larger on disk (default: 0, the whole channel)")
    p.add_argument("--data", nargs="+", metavar="PATH", help="text to measure the change in bits per byte on, the "
                   "first 300 kB (default: the run's own validation split)")
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")
    p.add_argument("--json", action="store_true", help="machine-readable output")
