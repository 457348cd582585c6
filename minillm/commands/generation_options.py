"""Options that `generate`, `chat` and `serve` share: sampling, speculative decoding, the output filter."""
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..generation.sampling import Sampling
    from ..generation.text import TextGenerator, TextStream


def add_sampling(p: ArgumentParser, longest: str = "(default: %(default)s)") -> None:
    """The settings of sampling.Sampling but the seed, and how many tokens."""
    p.add_argument("-n", "--max-new-tokens", type=int, default=200, help=longest)
    p.add_argument("--temperature", type=float, default=0.8, help="0 is greedy decoding")
    p.add_argument("--top-k", type=int, metavar="K", help="keep the K most probable tokens")
    p.add_argument("--top-p", type=float, metavar="P",
                   help="nucleus sampling: keep the most probable tokens up to this mass")
    p.add_argument("--min-p", type=float, metavar="P",
                   help="keep tokens of at least this share of the largest probability")
    p.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R",
                   help="above 1: tokens seen before become less likely")


def sampling_of(args: Namespace, seed: int) -> "Sampling":
    from ..generation.sampling import Sampling
    return Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty, seed)


def add_adapter(p: ArgumentParser) -> None:
    p.add_argument("--adapter", metavar="DIR", help="a LoRA adapter for this model, as PEFT or `minillm sft "
                   "--lora-rank` writes it, is merged into it; the adapter's tokenizer is used where it has one")


def add_drafts(p: ArgumentParser, when: str = "") -> None:
    """Speculative decoding; `when` says what is decoded so, if not everything."""
    drafts = p.add_mutually_exclusive_group()
    drafts.add_argument("--draft", metavar="DIR",
                        help=f"speculative decoding{when}: a smaller model of the same tokenizer proposes tokens; "
                        "the same distribution, sooner (`minillm distill` makes one)")
    drafts.add_argument("--lookup", action="store_true", help="speculative decoding by prompt lookup: draft tokens are "
                        "what followed the last ones where they stood before")
    p.add_argument("--draft-tokens", type=int, default=4, metavar="K", help="draft tokens a pass")


def add_kv_cache(p: ArgumentParser) -> None:
    p.add_argument("--kv-cache", choices=["float", "int8"], default="float", help="keys and values of the tokens so "
                   "far as floats, or rounded to int8: about a quarter of the memory, and nearly the same text")


def generator_of(args: Namespace) -> "TextGenerator":
    """The model that the options name, with its draft and adapter; and a line on standard error on what multiplies
    quantized weights."""
    import sys

    from ..generation.text import load_generator
    from ..models.quantized import arithmetic_in_use
    generator = load_generator(args.model, args.draft, args.lookup, args.draft_tokens, args.backend, args.adapter,
                               args.kv_cache)
    if line := arithmetic_in_use(generator.model):
        print(line, file=sys.stderr, flush=True)
    return generator


def add_filter(p: ArgumentParser) -> None:
    p.add_argument("--filter", action="store_true", help="mask personal data and keys; text comes by whole sentences, "
                   "and log-probabilities, which would tell it all, are refused")
    p.add_argument("--max-toxicity", type=float, metavar="P", help="also remove sentences above this probability "
                   "(English; needs pip install 'minillm[toxicity]')")


def filtered(args: Namespace) -> bool:
    return args.filter or args.max_toxicity is not None


def text_maker(args: Namespace) -> Callable[..., "TextStream"]:
    """What turns tokens into text: with --filter, whole sentences that have passed it."""
    from functools import partial

    from ..generation.output_filter import FilteredText, OutputFilter
    from ..generation.text import TextStream
    if not filtered(args):
        return TextStream
    return partial(FilteredText, check=OutputFilter(True, args.max_toxicity))
