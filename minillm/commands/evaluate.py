"""`minillm eval`, `safety` and `card`: evaluate a model, or two against each other, and write its model card."""
import json
from argparse import Namespace
from pathlib import Path

from ..progress import Progress
from . import Commands, add_common, directory, main_command
from .generation_options import add_adapter


def run_eval(args: Namespace) -> None:
    from ..evaluate.measure import evaluate, evaluation_page, store
    models = [args.model] + [args.against] * bool(args.against)
    tasks = [task.strip() for task in args.tasks.split(",") if task.strip()]
    results = evaluate(models, tasks, args.data, args.backend, args.seed, args.harness_path, args.adapter)
    print(json.dumps(results, indent=1) if args.json else evaluation_page(results))
    path = store(results, args.adapter or args.model)
    if not args.json:
        more = f" --adapter {args.adapter}" if args.adapter else ""
        print(f"stored in {path}, which `minillm card {args.model}{more}` reads")


def run_safety(args: Namespace) -> None:
    from ..evaluate import safety
    from ..evaluate.card import SAFETY
    from ..models.load import load
    from ..storage.atomic import write_json, write_jsonl
    prompts, found = safety.read_prompts(args.prompts or safety.PROMPTS), []
    for place, lora in [(args.model, args.adapter)] + [(args.against, None)] * bool(args.against):
        model, tokenizer = load(place, args.backend, adapter=lora)
        found.append(safety.red_team(model, tokenizer, prompts, args.seed, Progress("answers", "prompt"),
                                     args.max_new_tokens))
    if args.out:
        write_jsonl(args.out, found[0])
    rows, changes = safety.rates(found[0]), safety.changes(found[1], found[0]) if args.against else []
    results = {"rates": rows, "changes": changes}
    print(json.dumps(results, indent=1) if args.json else safety.safety_page(rows, changes))
    write_json(Path(args.adapter or args.model) / SAFETY, results, indent=1)        # which `minillm card` reads


def run_card(args: Namespace) -> None:
    from ..evaluate.card import write_card
    print(write_card(args.run, args.output, args.title, args.evaluation, args.safety, args.data_card, args.limit,
                     args.adapter))


def add(commands: Commands) -> None:
    add_eval(commands)
    add_safety(commands)
    add_card(commands)


def add_safety(commands: Commands) -> None:
    p = main_command(commands, "safety", run_safety,
                     "minillm safety runs/aligned --against runs/chat --out answers.jsonl")
    p.add_argument("model", type=directory, help="run directory")
    p.add_argument("--against", metavar="DIR", help="the model before alignment: what changed, and may it be chance")
    add_adapter(p)
    p.add_argument("--prompts", metavar="FILE.jsonl",
                   help="records with category, prompt, harmful (default: 50 bundled)")
    p.add_argument("-n", "--max-new-tokens", type=int, default=60, help="of an answer")
    p.add_argument("--out", metavar="FILE.jsonl", help="write every answer, to read")
    add_common(p, json=True)


def add_card(commands: Commands) -> None:
    p = main_command(commands, "card", run_card,
                     "minillm card runs/aligned --evaluation eval.json --safety safety.json --data-card DATA_CARD.md")
    p.add_argument("run", type=directory, help="run directory")
    p.add_argument("--adapter", metavar="DIR", help="the card of the run with this LoRA adapter on top, whose records "
                   "and results are those in DIR")
    p.add_argument("-o", "--output", metavar="FILE.md", help="default: MODEL_CARD.md in the run directory, or in the "
                   "adapter's")
    p.add_argument("--title", help="default: the directory's name")
    p.add_argument("--evaluation", nargs="+", default=[], metavar="FILE.json", help="what `minillm eval --json` "
                   "printed (default: evaluation.json, which `minillm eval` leaves in the run)")
    p.add_argument("--safety", metavar="FILE.json", help="what `minillm safety --json` printed (default: safety.json, "
                   "which `minillm safety` leaves in the run)")
    p.add_argument("--data-card", metavar="FILE.md", help="to refer to (see `minillm data card`)")
    p.add_argument("--limit", action="append", default=[], metavar="TEXT", help="a known limit; repeatable")


def add_eval(commands: Commands) -> None:
    p = main_command(commands, "eval", run_eval,
                     "minillm eval runs/chat --against runs/mine --tasks bpb,mc:questions.jsonl --data held_out/")
    p.add_argument("model", type=directory, help="run directory")
    p.add_argument("--against", metavar="DIR",
                   help="another model, measured on the same items and compared pair by pair")
    add_adapter(p)
    p.add_argument("--tasks", default="ppl,bpb", help="by commas: ppl, bpb (on --data); mc:FILE.jsonl (prompt, "
                   "choices, answer: its number); gen:FILE.jsonl (prompt, answer: exact match); samples (repetition, "
                   "diversity); memory (memorization: overlap of samples with --data); harness:TASK (of "
                   "lm-evaluation-harness, extra harness)")
    p.add_argument("--harness-path", metavar="DIR", help="a folder with task files of your own (YAML) for harness:TASK")
    p.add_argument("--data", nargs="+", metavar="PATH", help="folders and files with text")
    add_common(p, json=True)
