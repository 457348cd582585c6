"""`minillm kernel`: one's own kernels, checked and timed."""
import json
from argparse import Namespace

from . import Commands, add_json, command


def check(args: Namespace) -> int:
    from ..ops.table import OPS
    from ..workbench.kernel.check import as_json, check_kernel
    from ..workbench.kernel.subject import subjects
    if args.op and args.op not in OPS:
        raise ValueError(f"--op must be one of {', '.join(OPS)}: got {args.op}")
    if not (args.op or args.all):
        raise ValueError("--op says which op the file is for; --all checks every function that is bound to one")
    kernels = subjects(args.file, None if args.all else args.op, args.bind, args.cc, args.cflags, args.define,
                       args.include, args.dtype)
    found = []
    for kernel in kernels:
        for finding in check_kernel(kernel, args.threads, args.seed):
            found.append(finding)
            if not args.json:
                print(finding, flush=True)
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    return int(not all(finding.passed for finding in found))


def add(commands: Commands) -> None:
    from ..kernels.own.build import C_FLAGS
    p = command(commands, "kernel", None, "bring your own kernel: checked by value and gradient, and timed",
                "minillm kernel check my.c --op layernorm")
    actions = p.add_subparsers(title="actions", required=True)
    p = command(actions, "check", check, "check one's own kernel against the op's reference: values at every size, hard "
                "values, gradients, memory", "minillm kernel check my.c --op layernorm")
    p.add_argument("file", metavar="FILE", help=".c, .cpp, .so, or FILE.py[:forward,backward]")
    p.add_argument("--op", help="which op of the table (minillm kernel list)")
    p.add_argument("--all", action="store_true", help="every function of the file that is bound to an op")
    p.add_argument("--bind", action="append", default=[], metavar="MAPPING",
                   help='which argument is which, as in the file: "my_layernorm(out, inp=x, weight, bias, B, T, C)"')
    p.add_argument("--cc", help="compiler (default: gcc, or g++ for C++)")
    p.add_argument("--cflags", default=C_FLAGS, help=f"its flags (default: {C_FLAGS})")
    p.add_argument("-D", dest="define", action="append", default=[], metavar="NAME[=VALUE]", help="macro for the compiler")
    p.add_argument("-I", dest="include", action="append", default=[], metavar="DIR", help="folder of headers")
    p.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of a Python kernel's arrays")
    p.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the kernel (default: 2)")
    p.add_argument("--seed", type=int, help="the same values again (default: others each time)")
    add_json(p)
