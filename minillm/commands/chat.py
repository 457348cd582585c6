"""`minillm chat`: talk with a model in the terminal; each token is coloured by its probability."""
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
    from ..generation.sampling import Sampling
    from ..generation.text import TextGenerator, TextStream

EXAMPLE = "minillm chat runs/mine --temperature 0.7"
HELP = """/set NAME VALUE   change temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens
/again            another answer to the last message
/clear            forget the conversation
/quit             leave (or Ctrl-D); Ctrl-C stops an answer"""
RAMP = (196, 202, 208, 214, 220, 190, 154, 118)     # the 256 colours of terminals: red to green


def chat(args: Namespace) -> None:
    from ..tokenizer.chat_template import check_template
    check_at_least(args, max_new_tokens=1, draft_tokens=1)
    sampling = sampling_of(args, args.seed)
    generator = generator_of(args)
    check_template(generator.tokenizer)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if args.colour is None else args.colour
    colour = colour and not filtered(args)              # a sentence at a time has no probability to show
    talk = Talk(generator, sampling, args.max_new_tokens, colour, args.system, text_maker(args))
    if sys.stdin.isatty():
        print(f"{args.model}: context length {generator.model.config.block_size}. /help lists what else you can say.")
    while (line := read_line()) is not None:
        if not talk.hear(line):
            return


def read_line() -> str | None:
    """A line from the user; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


class Talk:
    """A conversation: the messages so far, and how the next is generated."""

    def __init__(self, generator: "TextGenerator", sampling: "Sampling", max_new_tokens: int, colour: bool,
                 system: str | None, new_text: Callable[..., "TextStream"]):
        self.generator, self.sampling, self.max_new_tokens = generator, sampling, max_new_tokens
        self.colour, self.new_text = colour, new_text
        self.opening = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []

    def hear(self, line: str) -> bool:
        """Act on a line; False to leave. What is wrong with a line is said, and nothing else happens."""
        try:
            return self.obey(line[1:].split()) if line.startswith("/") else self.reply(line)
        except ValueError as error:
            print(f"({error})")
            return True

    def obey(self, words: list[str]) -> bool:
        """Run a slash command; False to leave."""
        match words:
            case ["quit" | "exit"]:
                return False
            case ["clear"]:
                self.messages = []
            case ["again"] if self.messages:
                self.messages.pop()
                self.sampling = replace(self.sampling, seed=self.sampling.seed + 1)
                return self.reply(self.messages.pop()["content"])
            case ["set", name, value]:
                self.change(name, value)
            case _:
                print(HELP)
        return True

    def change(self, name: str, text: str) -> None:
        """Change a setting of sampling, or max_new_tokens."""
        value: Any
        try:
            value = None if text == "none" else int(text) if text.lstrip("+-").isdecimal() else float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number or none: got {text!r}") from None
        if name == "max_new_tokens":
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"max_new_tokens must be an integer of at least 1: got {text}")
            self.max_new_tokens = value
        elif name in vars(self.sampling):
            self.sampling = replace(self.sampling, **{name: value})
        else:
            raise ValueError(f"there is no {name} to set: {', '.join(vars(self.sampling))}, max_new_tokens")

    def reply(self, text: str) -> bool:
        """Answer a message, token by token. An answer that Ctrl-C cuts short is kept as far as it came."""
        if not text:
            return True
        self.messages.append({"role": "user", "content": text})
        ids, stop, stop_ids = self.prompt()
        if len(ids) > (block_size := self.generator.model.config.block_size):
            print(f"(that is {len(ids)} tokens; only the last {block_size} fit into the context)")
        answer: list[str] = []
        try:
            self.generate(ids, stop, stop_ids, answer)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
        print("\n" + self.acceptance())
        self.messages.append({"role": "assistant", "content": "".join(answer)})
        return True

    def prompt(self) -> tuple[list[int], tuple[str, ...], set[int]]:
        """The conversation's ids; its oldest turns are forgotten when they leave no room for half an answer."""
        from ..tokenizer.chat_template import chat_prompt
        block_size = self.generator.model.config.block_size
        room = block_size - min(self.max_new_tokens, block_size) // 2
        while True:
            ids, stop, stop_ids = chat_prompt(self.generator.tokenizer, self.opening + self.messages)
            if len(ids) <= room or len(self.messages) == 1:
                return ids, stop, stop_ids
            del self.messages[:2]

    def generate(self, ids: list[int], stop: tuple[str, ...], stop_ids: set[int], answer: list[str]) -> None:
        """Print the answer as it comes, and append its pieces to `answer`."""
        from ..generation.text import spoken, token_steps
        tokenizer, logprob = self.generator.tokenizer, 0.0
        self.generator.counts = type(self.generator.counts)()
        steps = token_steps(self.generator, ids, self.max_new_tokens, self.sampling, 0)
        for step, piece in spoken(steps, self.new_text(tokenizer, stop), stop_ids):
            logprob = step.logprob if step else logprob
            answer.append(piece)
            print(painted(piece, logprob) if self.colour else piece, end="", flush=True)

    def acceptance(self) -> str:
        """A line on speculative decoding; empty without."""
        counts = self.generator.counts
        if self.generator.draft is None or not counts.drafted:
            return ""
        return f"({counts.acceptance:.0%} of the draft tokens accepted, {counts.tokens_per_pass:.2f} tokens a pass)\n"


def painted(text: str, logprob: float) -> str:
    """Text in a colour from red (probability 1/1000 or less) to green (certain)."""
    place = max(0.0, 1 + logprob / math.log(1000))
    return f"\x1b[38;5;{RAMP[min(len(RAMP) - 1, int(place * len(RAMP)))]}m{text}\x1b[0m" if text else ""


def add(commands: Commands) -> None:
    p = main_command(commands, "chat", chat, EXAMPLE)
    p.add_argument("model", help="run directory, or one as transformers writes it, whose chat template is used")
    p.add_argument("--system", help="instructions that stand before the conversation")
    add_adapter(p)
    add_sampling(p, "longest answer")
    for option, value in (("--colour", True), ("--no-colour", False)):
        p.add_argument(option, dest="colour", action="store_const", const=value,
                       help="colour by probability (default: on a terminal)" if value else "plain text")
    add_drafts(p)
    add_kv_cache(p)
    add_filter(p)
    add_common(p)
