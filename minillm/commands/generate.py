"""`minillm generate`: continue a prompt, streamed as text, or whole as JSON."""
import json
import sys
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import Commands, add_common, check_at_least, main_command
from .generation_options import (
    add_adapter,
    add_drafts,
    add_filter,
    add_kv_cache,
    add_sampling,
    filtered,
    generator_of,
    sampling_of,
    text_maker,
)

if TYPE_CHECKING:
    from ..generation.text import TextGenerator

EXAMPLE = 'minillm generate runs/mine -p "Once upon a time" -n 200 --temperature 0.8 --top-p 0.95 --samples 3'


def generate(args: Namespace) -> None:
    from ..generation.text import check_stop
    check_at_least(args, samples=1, logprobs=0, draft_tokens=1, max_new_tokens=0)
    if args.logprobs is not None and filtered(args):
        raise ValueError("--logprobs shows every token: it does not go with --filter")
    check_stop(args.stop), sampling_of(args, args.seed)         # before a large model is read
    generator = generator_of(args)
    check_special(args, generator.tokenizer.special_tokens)
    samples = [one_sample(args, generator, number) for number in range(args.samples)]
    speculation = speculation_of(generator)
    if args.json:
        print(json.dumps({"prompt": args.prompt, "samples": samples, "speculation": speculation}))
    elif speculation:
        summary = "\n{acceptance:.0%} of the draft tokens accepted, {tokens_per_pass:.2f} tokens a pass"
        print(summary.format(**speculation), file=sys.stderr)


def one_sample(args: Namespace, generator: "TextGenerator", number: int) -> dict:
    """Generate one text, with the seed after the last one's; on the terminal while it comes."""
    from ..generation.text import generate_text
    sampling = sampling_of(args, args.seed + number)

    def say(text: str) -> None:
        if not args.json:
            print(text, end="", flush=True)
    if args.samples > 1:
        say(f"--- {number + 1} of {args.samples}, seed {sampling.seed}\n")
    say(args.prompt)
    sample = generate_text(generator, args.prompt, args.max_new_tokens, sampling, args.stop, args.logprobs or 0, say,
                           text_maker(args), args.special)
    say("\n")
    if args.logprobs is not None:
        say("".join(map(line, sample["tokens"])))
    return {k: v for k, v in sample.items() if k != "tokens" or not filtered(args)}


def check_special(args: Namespace, special_tokens: Iterable[str]) -> None:
    """A special token in the prompt is meant as one or as its text; the user says which."""
    if args.special is None and (found := [text for text in special_tokens if text in args.prompt]):
        raise ValueError(f"--prompt holds the special token {found[0]}: add --special to mean the token, --no-special "
                         "to mean its text")


def speculation_of(generator: "TextGenerator") -> dict | None:
    """Statistics of speculative decoding over all samples; None without a draft."""
    c = generator.counts
    return {"passes": c.passes, "drafted": c.drafted, "accepted": c.accepted, "acceptance": c.acceptance,
            "tokens_per_pass": c.tokens_per_pass} if generator.draft else None


def line(token: dict) -> str:
    """One token and the model's alternatives, with log-probabilities in nats."""
    others = "".join(f"  {other['text']!r} {other['logprob']:.3f}" for other in token["top"])
    return f"{token['text']!r:<20}{token['logprob']:>9.3f} {others}\n"


def add(commands: Commands) -> None:
    p = main_command(commands, "generate", generate, EXAMPLE)
    p.add_argument("model", help="run directory, or one as transformers writes it")
    p.add_argument("-p", "--prompt", default="", help="text to continue (default: a fresh document). Of a prompt "
                   "longer than the model's context the last tokens that fit are read; a text that outgrows it goes on "
                   "from its second half")
    p.add_argument("--special", action=BooleanOptionalAction, help="special tokens in the prompt, as <|user|>, are "
                   "those tokens; --no-special: they are ordinary text (default: refuse them)")
    add_adapter(p)
    add_sampling(p)
    p.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    p.add_argument("--samples", type=int, default=1, metavar="N",
                   help="texts to sample, with seeds SEED, SEED + 1, ...")
    p.add_argument("--logprobs", type=int, metavar="N", help="log-probability of each token and of the N most probable")
    p.add_argument("--json", action="store_true", help="print everything as JSON at the end")
    add_filter(p)
    add_drafts(p)
    add_kv_cache(p)
    add_common(p)
