"""`minillm eval`: measure a model, or two against each other."""
import json

from . import command


def run(args):
    from ..evaluate.run import evaluate, page
    models = [args.model] + [args.against] * bool(args.against)
    results = evaluate(models, [task.strip() for task in args.tasks.split(",") if task.strip()], args.data, args.backend,
                       args.seed)
    print(json.dumps(results, indent=1) if args.json else page(results))


def add(commands):
    p = command(commands, "eval", run, "measure a model on text, choices and answers, with confidence intervals",
                "minillm eval runs/chat --against runs/mine --tasks bpb,mc:questions.jsonl --data held_out/")
    p.add_argument("model", help="run directory")
    p.add_argument("--against", metavar="DIR", help="another model, measured on the same items and compared pair by pair")
    p.add_argument("--tasks", default="ppl,bpb", help="by commas: ppl, bpb (on --data); mc:FILE.jsonl (prompt, choices, "
                   "answer: its number); gen:FILE.jsonl (prompt, answer: exact match); samples (repetition, diversity); "
                   "memory (overlap of samples with --data) (default: %(default)s)")
    p.add_argument("--data", nargs="+", metavar="PATH", help="folders and files with text")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")
    p.add_argument("--json", action="store_true", help="machine-readable output")
