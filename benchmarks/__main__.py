"""`python -m benchmarks`: the command line. NumPy is imported later, since it counts its threads when it loads."""
import argparse
import os
import sys

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
EXAMPLES = """examples:
  python -m benchmarks layernorm gelu --dims B=4,T=1024
  python -m benchmarks linear --ladder              every teaching variant of one op
  python -m benchmarks step --batch 4 --tokens 256  the GPT-2 training step against PyTorch
  python -m benchmarks lora lora_dpo                the step of adapters, and of DPO with them, against PEFT
  python -m benchmarks speculative --target runs/pair/target --draft runs/pair/draft
  python -m benchmarks attention_lengths            time and memory of attention up to T = 8192
  python -m benchmarks load                         small training steps beside 0, 0.3, 1 and 2 busy processes
  python -m benchmarks gradcheck                    planted errors: who finds them, who complains about right pairs
  python -m benchmarks --all --json                 all of this, into benchmarks/results/ (25 to 40 minutes)
  python -m benchmarks --readme                     the newest results into the tables of both READMEs"""


def parser():
    """All options; names of ops are checked later, against the op table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description="Check, then time: NumPy, C++ and (if installed) PyTorch, in turns. Exit code 1 if one is wrong.")
    add = parser.add_argument
    add("names", nargs="*", metavar="op",
        help="ops of the table, step, lora, lora_dpo, decode, demo, tokenizer, dedup, attention_lengths, speculative, "
        "serve, load or gradcheck (default: every op)")
    add("--all", action="store_true",
        help="every op, both ladders, step (T=256 and 1024), demo, attention_lengths, decode")
    add("--quick", action="store_true",
        help="with --all: small sizes, no torch.compile, one seed: minutes, to try it; gradcheck: fewer right pairs")
    add("--minutes", type=float, metavar="N", help="begin no further part after so long; what is done is kept")
    add("--json", action="store_true", help="write the results as JSON")
    add("--out", metavar="FILE", help="where to (default: benchmarks/results/DATE-NAMES.json; - prints it)")
    add("--date", metavar="YYYY-MM-DD", help="the date to note down (default: today)")
    add("--dims", metavar="B=4,T=256,...", help="sizes B, T, C, NH, V for ops (default: GPT-2's, B=4,T=256)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="for ops (default: float32)")
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="for everybody (default: %(default)s)")
    add("--repeat", type=int, metavar="N", help="rounds, at least 5 (default: 5 to 7, by the time they take)")
    add("--ladder", action="store_true", help="also time the teaching variants")
    add("--readme", nargs="?", const="", metavar="FILE",
        help="run nothing, put a results file into the READMEs' tables")
    group = parser.add_argument_group("step and decode")
    group.add_argument("--size", default="124M", metavar="124M|tiny", help="the model (default: 124M)")
    group.add_argument("--batch", type=int, default=4, metavar="B", help="sequences in a step (default: 4)")
    group.add_argument("--tokens", type=int, metavar="T",
                       help="tokens a sequence (default: 64 in step, 128 before decode)")
    group.add_argument("--compile", action="store_true", help="torch.compile, too (slow; skipped without a compiler)")
    group.add_argument("--only", metavar="NAMES", help="candidates, separated by commas; the first is the measure")
    group = parser.add_argument_group("demo and attention_lengths")
    group.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each in the demo (default: 3)")
    group.add_argument("--steps", type=int, default=2000, metavar="N", help="of the demo's training (default: 2000)")
    group.add_argument("--lengths", metavar="T,T,...", help="of attention_lengths (default: 512,1024,2048,4096,8192)")
    group = parser.add_argument_group("speculative")
    group.add_argument("--target", metavar="DIR", help="the target model, as `minillm distill` leaves it")
    group.add_argument("--draft", metavar="DIR", help="the draft model")
    return parser


def main(argv=None):
    """Returns the exit code."""
    options = parser().parse_args(argv)
    if options.threads < 1:
        parser().error(f"--threads must be at least 1: got {options.threads}")
    os.environ.update(dict.fromkeys(THREADS, str(options.threads)))
    from minillm.kernels.load import require

    from .suite import execute
    try:
        if options.readme is None:
            require()
        return execute(options)
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
