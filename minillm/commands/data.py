"""`minillm data`: from raw text to shards."""
import json
import re

from . import command, printer

EXAMPLE = "minillm data dedup crawl/ -o kept.jsonl --threshold 0.8"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def data_dedup(args):
    from ..data import dedup
    from ..progress import Progress
    progress = Progress("dedup", unit="B")
    report = dedup.dedup(args.inputs, args.output, dedup_options(args), progress)
    progress.close()
    printer(args.json)(dedup.page(report, args.output))
    if args.json:
        print(json.dumps(report))


def dedup_options(args):
    from ..data import dedup, minhash
    if (args.bands is None) != (args.rows is None):
        raise ValueError("--bands and --rows belong together")
    cut = {"ngram": args.ngram or (5 if args.unit == "words" else 20), "unit": args.unit, "seed": args.seed}
    weight = 0.5 if args.no_verify else minhash.MISS_WEIGHT
    lsh = minhash.Lsh(args.bands, args.rows, **cut) if args.bands is not None else minhash.choose(
        args.threshold, args.permutations, weight, **cut)
    return dedup.Options(None if args.exact_only else lsh, args.threshold, not args.no_verify, args.lines,
                         args.line_characters, memory_size(args.memory), args.threads, args.field)


def memory_size(text):
    """"2G" -> 2 * 2**30. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"--memory must be a size such as 512M or 4G: got {text!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def add(commands):
    p = command(commands, "data", None, "from raw text to shards", EXAMPLE)
    actions = p.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_dedup(actions)


def add_dedup(actions):
    p = command(actions, "dedup", data_dedup, "drop exact and near-duplicate documents, and say which and why", EXAMPLE)
    p.add_argument("inputs", nargs="+", metavar="IN", help="folders and files: .txt .md .py .jsonl, also .gz")
    p.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="kept records; the report goes beside it")
    p.add_argument("--threshold", type=float, default=0.8, help="Jaccard similarity of near-duplicates (default: %(default)s)")
    p.add_argument("--unit", choices=["words", "characters"], default="words", help="what shingles are made of (default: words)")
    p.add_argument("--ngram", type=int, metavar="N", help="units in a shingle (default: 5 words, 20 characters)")
    p.add_argument("--permutations", type=int, default=128, metavar="K",
                   help="values of a signature; bands and rows follow from it and the threshold (default: %(default)s)")
    p.add_argument("--bands", type=int, metavar="B", help="instead of the derived ones, with --rows")
    p.add_argument("--rows", type=int, metavar="R", help="values in a band")
    p.add_argument("--no-verify", action="store_true", help="all that share a band are duplicates: no exact comparison")
    p.add_argument("--exact-only", action="store_true", help="no near-duplicates")
    p.add_argument("--lines", type=int, metavar="N", help="also remove lines that stand in more than N kept documents")
    p.add_argument("--line-characters", type=int, default=30, metavar="N", help="shorter lines stay (default: %(default)s)")
    p.add_argument("--memory", default="1G", help="for sorting, such as 512M or 4G (default: %(default)s)")
    p.add_argument("--threads", type=int, metavar="N", help="default: all cores; the result is the same")
    p.add_argument("--field", default="text", help="of a .jsonl record that holds the text (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the permutations (default: %(default)s)")
    p.add_argument("--json", action="store_true", help="print the report as JSON; the commentary goes to stderr")
