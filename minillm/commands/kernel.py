"""`minillm kernel`: one's own kernels, checked and timed."""
import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from . import Commands, add_json, command, main_command, printer

LANGUAGES = ("c", "cpp", "cu", "py")


def listed(args: Namespace) -> int:
    from ..workbench.kernel.template import listing
    rows = listing()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        shapes = " ".join(f"{name}({','.join(shape)})" for name, shape in row["shapes"].items())
        told = "".join(f"; {name} = {value:g}" for name, value in row["constants"].items())
        print(f"{row['c']};\n    {shapes}{told}; {', '.join(row['dtypes'])}; {row['flops'] / 1e6:,.1f} MFLOP, "
              f"{row['bytes'] / 1e6:,.1f} MB in float32\n")
    print("at the sizes of GPT-2 124M: B=4 T=256 C=768 NH=12 V=50257")
    return 0


def new(args: Namespace) -> int:
    from ..workbench.kernel.template import new_file
    check_op(args.op)
    ending = Path(args.out or "").suffix[1:]
    lang = args.lang or (ending if ending in LANGUAGES else "c")
    path = Path(args.out or f"{args.op}.{lang}")
    if path.exists():
        raise ValueError(f"-o {path} exists already; nothing was written")
    path.write_text(new_file(args.op, args.direction, lang))
    print(f"wrote {path}; when its body is written: minillm kernel check {path} --op {args.op}")
    return 0


def check(args: Namespace) -> int:
    from ..kernels.own.build import DoesNotCompile
    from ..workbench.kernel.check import Finding, as_json, check_kernel
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not args.json:
            print(finding, flush=True)

    try:
        for kernel in kernels_of(args):
            for finding in check_kernel(kernel, args.threads, args.seed):
                tell(finding)
    except DoesNotCompile as error:
        tell(Finding(Path(args.file).name, "compiles", False, str(error)))
    except ValueError as error:                         # wrong usage, which is no verdict
        print(f"minillm kernel check: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    return int(not all(finding.passed for finding in found))


def bench(args: Namespace) -> int:
    from ..workbench.kernel import bench as timing
    from ..workbench.kernel.check import check_kernel
    from ..workbench.kernel.runner import Refused
    log = Path(args.log)
    if args.file and args.file.endswith(".cu"):
        print("minillm kernel bench: FILE must not be .cu: the emulator tells nothing of a GPU's time", file=sys.stderr)
        return 2
    if args.table:
        print(timing.table(list(timing.read_log(log))))
        return 0
    rows, say = [], printer(args.json)
    try:
        dims = dims_of(args.dims, args.workload)
        for kernel in kernels_of(args):
            say(f"checking {kernel.name}")
            if wrong := [str(finding) for finding in check_kernel(kernel, args.threads) if not finding.passed]:
                raise Refused("check", "\n".join(["it is not right, so its speed is nobody's concern:", *wrong]))
            say(f"timing {kernel.name} beside {args.against}")
            rows.append(timing.bench_kernel(kernel, args.against.split(","), dims, args.threads))
    except Refused as refused:
        print(f"refused: {refused.args[0]}: {refused.args[1]}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"minillm kernel bench: {error}", file=sys.stderr)
        return 2
    timing.keep(rows, log)
    if args.exchange:
        from ..workbench.kernel.exchange import write
        write(Path(args.exchange), rows, Path(args.file.partition(":")[0]), args.author)
    if args.plot:
        timing.roofline_picture(rows, Path(args.plot))
    print(json.dumps(rows, indent=1) if args.json else timing.table(rows) + timing.sentences(rows))
    return 0


def dims_of(text: str | None, workload: str | None) -> Any:
    """Sizes from "B=4 T=256 C=768 NH=12 V=8192", or of a workload file; what is left out has its default."""
    from ..workbench.kernel.bench import DIMS
    from ..workbench.kernel.exchange import dims_of_workload
    if workload:
        if not Path(workload).is_file():
            raise ValueError(f"--workload must be an existing file: got {workload}")
        return dims_of_workload(Path(workload), DIMS)
    given = dict(item.partition("=")[::2] for item in (text or "").split())
    if unknown := [name for name in given if name not in DIMS.sampled()]:
        known = " ".join(f"{name}=..." for name in DIMS.sampled())
        raise ValueError(f"--dims must be made of {known}: got {unknown[0]}")
    if wrong := [f"{name}={value}" for name, value in given.items() if not value.isdecimal() or int(value) < 1]:
        raise ValueError(f"--dims must give whole numbers from 1 on: got {wrong[0]}")
    return DIMS._replace(**{name: int(value) for name, value in given.items()})


def kernels_of(args: Namespace) -> list[Any]:
    """The kernels that the arguments name."""
    from ..workbench.kernel.subject import subjects
    if args.threads < 1:
        raise ValueError(f"--threads must be at least 1: got {args.threads}")
    if args.op:
        check_op(args.op)
    elif not args.all and not (args.file or "").endswith(".json"):
        raise ValueError("--op says which op the file is for; --all takes every function that is bound to one")
    return subjects(args.file, None if args.all else args.op, args.bind, args.cc, args.cflags, args.define,
                    args.include,
                    args.dtype)


def check_op(op: str) -> None:
    from ..ops.table import OPS
    if op not in OPS:
        raise ValueError(f"--op must be one of {', '.join(OPS)}: got {op}")


CUDA = """A .cu file runs on an emulator of a GPU on the CPU; where there is a GPU and nvcc, on the GPU, too. Called are
the host functions that launch kernels, with device pointers; with host pointers where they copy an argument themselves
(cudaMemcpy(d_x, x, n, cudaMemcpyHostToDevice)). Comments on lines of their own say the rest:

  // minillm: my_function(y=out, inp=x, B, T, C)          which argument is which
  // launch: my_kernel<<<(N + 255) / 256, 256>>>          how to launch a kernel that has no host function
  // sizes: C % 4 == 0, T <= 1024, HS == 64               the sizes that it is written for
  // precision: half                                      (bf16, tf32) what it computes in between float arrays

The emulator reports, with the line: races, missing and divergent barriers, memory out of bounds, uninitialised, freed
or of the wrong side, misaligned vectors, integer overflow, launches that fail; as notes bank conflicts, uncoalesced
loads, unchecked launches. `minillm kernel new OP --lang cu -o my.cu` writes a file to begin with."""


def add(commands: Commands) -> None:
    p = main_command(commands, "kernel", None, "minillm kernel check my.c --op layernorm")
    actions = p.add_subparsers(title="actions", required=True)
    p = command(actions, "list", listed, "each op's functions: C signature, shapes, dtypes, FLOPs and bytes",
                "minillm kernel list")
    add_json(p)
    p = command(actions, "new", new, "write a file to begin with, which compiles and fails the check",
                "minillm kernel new layernorm --direction forward --lang c -o my.c")
    p.add_argument("op", metavar="OP", help="which op of the table (minillm kernel list)")
    p.add_argument("--direction", choices=["forward", "backward"], help="default: both, where there are both")
    p.add_argument("--lang", choices=LANGUAGES, help="default: by the ending of FILE, or c")
    p.add_argument("-o", "--out", metavar="FILE", help="default: OP.LANG")
    p = command(actions, "check", check,
                "check one's own kernel against the op's reference: values at every size, hard "
                "values, gradients, memory", "minillm kernel check my.c --op layernorm")
    p.epilog = f"{CUDA}\n\n{p.epilog}"
    add_file(p)
    p.add_argument("--seed", type=int, help="the same values again (default: others each time)")
    add_json(p)


    p = command(actions, "bench", bench,
                "time one's own kernel beside NumPy, ours and PyTorch; every timed call is checked",
                "minillm kernel bench my.c --op layernorm --against numpy,cpu")
    add_file(p, optional=True)
    p.add_argument("--against", default="numpy,cpu", help="numpy, cpu, cpu/VARIANT, torch (default: numpy,cpu)")
    p.add_argument("--dims", help='sizes, such as "B=4 T=256 C=768 NH=12 V=8192"')
    p.add_argument("--log", default="kernels.jsonl",
                   help="where results are kept, as JSON lines (default: kernels.jsonl)")
    p.add_argument("--table", action="store_true", help="only print the standing table of --log")
    p.add_argument("--plot", metavar="FILE.png", help="draw the roofline")
    p.add_argument("--exchange", metavar="DIR",
                   help="write definition, workload, solution and trace there, as other benches do")
    p.add_argument("--author", default="you", help="of the solution (default: you)")
    p.add_argument("--workload", metavar="FILE.jsonl", help="the sizes of a workload of that kind, instead of --dims")
    add_json(p)


def add_file(p: ArgumentParser, optional: bool = False) -> None:
    """The kernel's file, and how it is bound and compiled."""
    from ..kernels.own import C_FLAGS
    p.add_argument("file", metavar="FILE", nargs="?" if optional else None,
                   help=".c, .cpp, .cu, .so, FILE.py[:forward,backward], or a solution.json")
    p.add_argument("--op", help="which op of the table (minillm kernel list)")
    p.add_argument("--all", action="store_true", help="every function of the file that is bound to an op")
    p.add_argument("--bind", action="append", default=[], metavar="MAPPING",
                   help='which argument is which, as in the file: "my_layernorm(out, inp=x, weight, bias, B, T, C)"')
    p.add_argument("--cc", help="compiler (default: gcc, or g++ for C++)")
    p.add_argument("--cflags", default=C_FLAGS, help=f"its flags (default: {C_FLAGS})")
    p.add_argument("-D", dest="define", action="append", default=[], metavar="NAME[=VALUE]",
                   help="macro for the compiler")
    p.add_argument("-I", dest="include", action="append", default=[], metavar="DIR", help="folder of headers")
    p.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of a Python kernel's arrays")
    p.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the kernel (default: 2)")
