"""What the commands that write text have in common: how to choose tokens, who guesses ahead, what is filtered."""
from functools import partial


def add_sampling(p, longest="(default: %(default)s)"):
    """The settings of sampling.Sampling but the seed, and how many tokens."""
    p.add_argument("-n", "--max-new-tokens", type=int, default=200, help=longest)
    p.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: %(default)s)")
    p.add_argument("--top-k", type=int, metavar="K", help="keep the K likeliest tokens")
    p.add_argument("--top-p", type=float, metavar="P", help="keep the likeliest tokens up to this probability")
    p.add_argument("--min-p", type=float, metavar="P",
                   help="keep tokens at least this share as likely as the likeliest")
    p.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R",
                   help="above 1: tokens seen before become less likely (default: %(default)s)")


def sampling_of(args, seed):
    from ..generation.sampling import Sampling
    return Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty, seed)


def add_drafts(p, when=""):
    """Speculative decoding; `when` says what is guessed ahead, if not everything."""
    drafts = p.add_mutually_exclusive_group()
    drafts.add_argument("--draft", metavar="DIR",
                        help=f"a smaller model of the same tokenizer that guesses ahead{when}: "
                        "the same distribution, sooner (`minillm distill` makes one)")
    drafts.add_argument("--lookup", action="store_true", help="guess ahead by looking the last words up in the text")
    p.add_argument("--draft-tokens", type=int, default=4, metavar="K", help="guesses a pass (default: %(default)s)")


def add_filter(p):
    p.add_argument("--filter", action="store_true",
                   help="mask personal data and keys; text comes by whole sentences, and "
                   "log-probabilities, which would tell it all, are refused")
    p.add_argument("--max-toxicity", type=float, metavar="P", help="also remove sentences above this probability "
                   "(English; needs pip install 'minillm[toxicity]')")


def filtered(args):
    return args.filter or args.max_toxicity is not None


def text_maker(args):
    """What turns tokens into text: with --filter, whole sentences that have passed it."""
    from ..generation.text import TextStream
    if not filtered(args):
        return TextStream
    from ..generation.output_filter import FilteredText, OutputFilter
    return partial(FilteredText, check=OutputFilter(True, args.max_toxicity))
