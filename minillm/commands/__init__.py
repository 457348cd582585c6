"""The command line: one file a command, each with `add(commands)`; here are the options and checks that they share."""
import sys
from argparse import (
    Action,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
    _SubParsersAction,
)
from collections.abc import Callable
from os.path import isfile
from textwrap import fill

TYPE_CHECKING = False              # type checkers take it for true; typing itself takes milliseconds to import
if TYPE_CHECKING:
    from typing import TypeAlias
Commands: "TypeAlias" = "_SubParsersAction[ArgumentParser]"

COMMANDS = {                  # each command and what it does, so that `minillm --help` imports none of their files
    "quickstart": "train a GPT on the bundled corpus, in minutes",
    "info": "versions, CPU features, what is built, what is not and why",
    "learn": "exercises that judge: without a word the path and your progress; with a NAME its file, to be filled "
        "in; check judges a file in stages, hint gives one more step of the derivation at each call, solution all "
        "of it, grade the files of a class (they run with your rights)",
    "trace": "one training step and one decoding step of a model as a page that shows every number: data and "
        "gradients as a graph, formulas, source lines, attention, logit lens, AdamW",
    "book": "build the book: theory, every op with derivation, code, check and measured kernels, appendices; as "
        "PDF (needs the extra book) or HTML; the same bytes each time",
    "plan": "parameters, FLOPs, memory, tokens, hours and money of a model, before it is trained",
    "train": "train a model on your own text",
    "generate": "continue a prompt",
    "verify": "check a run: causal leaks, cached decoding, batches, threads, resuming, tied weights, ...; exit "
        "code 1 if one fails",
    "doctor": "look for what is wrong with a training run, with the numbers that show it and what to change; exit "
        "code 0: healthy, 1: something was found, 2: cannot be read",
    "gradcheck": "check every backward, or one of your own (FILE.py:forward,backward) against numeric derivatives "
        "with error bars; exit code 0: right, 1: wrong, 2: cannot be called",
    "kernel": "bring your own kernel: checked by value and gradient, and timed",
    "tokenizer": "train a byte-level BPE; compare and look at any model's tokenizer",
    "data": "from raw text to shards",
    "sft": "fine-tune a model on conversations",
    "dpo": "direct preference optimization: which of two answers is better",
    "grpo": "group-relative policy optimization: reward sampled answers that a program finds right",
    "distill": "distil a draft model for speculative decoding from a target (without TARGET, train both on the "
        "bundled corpus); report acceptance, tokens a pass, and the speed-up beside the theory",
    "eval": "perplexity, multiple choice, exact match, with confidence intervals",
    "safety": "ask a model for harm, and count refusals, toxicity and personal data",
    "card": "write a model card from a run's own records",
    "quantize": "matrices in int8, int4 or bfloat16: faster, in less memory",
    "export": "write a model as a GGUF file, which llama.cpp runs; or a GGUF file as a directory, which "
        "transformers reads",
    "serve": "serve a model by OpenAI's protocol, with a chat page at /",
    "chat": "talk with a model in the terminal",
}
FILES = {"sft": "posttrain", "dpo": "posttrain", "grpo": "posttrain",              # others have their command's name
         "eval": "evaluate", "safety": "evaluate", "card": "evaluate"}


class Help(RawDescriptionHelpFormatter):
    """The example as it is; behind what an option does its default, unless its help speaks of that itself."""

    def _get_help_string(self, action: Action) -> str | None:
        plain = action.nargs == 0 or action.default in (None, []) or "default" in (action.help or "")
        return action.help if plain else f"{action.help} (default: %(default)s)"


def printer(as_json: bool) -> Callable[[str], None]:
    """Where the running commentary goes: to stderr when stdout is for JSON."""
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def print_json(args: Namespace, results: object) -> None:
    """The results on one line, if --json asks for them."""
    if args.json:
        import json
        print(json.dumps(results))


def main_command(commands: Commands, name: str, function: Callable[[Namespace], int | None] | None = None,
                 example: str = "") -> ArgumentParser:
    """Add a command of COMMANDS; without a function only its name."""
    return command(commands, name, function, COMMANDS[name], example)


def command(commands: Commands, name: str, function: Callable[[Namespace], int | None] | None, summary: str,
            example: str) -> ArgumentParser:
    """Add a command (or an action of one); `example` ends its --help as it is, to be pasted. A function of None has
    actions below it."""
    p = commands.add_parser(name, help=summary, description=fill(summary, 79), epilog=f"example: {example}",
                            formatter_class=Help)
    p.set_defaults(function=function)
    return p


def add_common(p: ArgumentParser, json: bool = False) -> None:
    """--seed, --backend and perhaps --json."""
    p.add_argument("--seed", type=int, default=0)
    add_backend(p)
    if json:
        add_json(p)


def add_backend(p: ArgumentParser) -> None:
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")


def add_json(p: ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")


def directory(path: str) -> str:
    """The argument of a command that reads a directory's files, or writes beside them. Raises what argparse prints."""
    if path.endswith(".gguf") and isfile(path):
        raise ArgumentTypeError(f"{path} is a GGUF file: `minillm export {path} -o DIR` makes a directory of it, which "
                                "this command reads")
    return path


def check_at_least(args: Namespace, **lowest: float) -> None:
    """Raise ValueError naming an option that is below its lowest value; one that is not given (None) passes."""
    for name, least in lowest.items():
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}: got {value}")


def add_resume(p: ArgumentParser) -> None:
    """--out, --resume and --override of the commands that train."""
    p.add_argument("--out", required=True, help="run directory; a run that is there is resumed")
    p.add_argument("--resume", choices=["auto", "never"], default="auto", help="never: begin again (default: auto)")
    p.add_argument("--override", action="store_const", dest="resume", const="override",
                   help="resume although settings (learning rate, batch size, ...) are not those of the run")
