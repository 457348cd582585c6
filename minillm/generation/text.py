"""Text streamed from a model: whole characters as they become certain, until a stop string, an end token or a limit."""
import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..models.gpt2 import GPT
from ..models.load import load
from ..models.quantized import in_panels
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import end_tokens
from ..tokenizer.roles import document_start, opened
from . import speculative
from .decode import Step, steps
from .sampling import Sampling


class TextStream:
    """Incremental detokenization: tokens in, text out, never half a character, a special token or a stop string.

    A token is bytes, and a character may need several of them; and the last characters may be the beginning of a stop
    string. Both are held back until more is known. `stopped` is the stop string that ended the text, or None.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str | Iterable[str] = ()):
        """stop: strings that end the text. Raises ValueError for one that is empty."""
        self.stop, self.tokenizer, self.held = check_stop(stop), tokenizer, ""
        self.special = frozenset(tokenizer.special_tokens.values())
        self.stopped: str | None = None
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")      # keeps unfinished characters

    def push(self, token: int) -> str:
        """The text that is certain now that this token has come; "" once stopped."""
        return "" if token in self.special else self.release(self.decoder.decode(self.tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """What was held back when the text ends here."""
        text, self.held = self.release(self.decoder.decode(b"", final=True)) + self.held, ""
        return text

    def release(self, text: str) -> str:
        """Decoded text comes in; out goes what cannot be the beginning of a stop string."""
        if self.stopped is not None:
            return ""
        self.held += text
        found = [(self.held.find(stop), stop) for stop in self.stop if stop in self.held]
        if found:
            at, self.stopped = min(found)
            text, self.held = self.held[:at], ""
            return text
        keep = max((unfinished(self.held, stop) for stop in self.stop), default=0)
        text, self.held = self.held[:len(self.held) - keep], self.held[len(self.held) - keep:]
        return text


def check_stop(stop: str | Iterable[str]) -> tuple[str, ...]:
    """Stop strings as a tuple; one string is one of them."""
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stop:
        if not isinstance(text, str) or not text:
            raise ValueError(f"stop must be strings of at least one character: got {text!r}")
    return stop


def unfinished(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop` (and not all of it)."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


@dataclass
class TextGenerator:
    """A model with its tokenizer, and perhaps a draft that proposes k tokens a pass."""

    model: GPT
    tokenizer: Tokenizer
    draft: GPT | speculative.Lookup | None = None
    k: int = 4
    counts: speculative.Counts = field(default_factory=speculative.Counts)


def load_generator(directory: str | Path, draft: str | Path | None = None, lookup: bool = False, k: int = 4,
                   backend: str = "auto", adapter: str | Path | None = None,
                   kv_cache: str = "float") -> TextGenerator:
    """A TextGenerator from the target's directory, with an adapter's on top, and a draft's. kv_cache: of both, "float"
    or "int8". Raises ValueError if their tokenizers differ."""
    model, tokenizer = load(directory, backend, adapter=adapter)
    model = in_panels(model)
    model.kv_cache = kv_cache
    if lookup:
        return TextGenerator(model, tokenizer, speculative.Lookup(model.config.vocab_size), k)
    if draft is None:
        return TextGenerator(model, tokenizer)
    small, other = load(draft, backend)
    small = in_panels(small)
    small.kv_cache = kv_cache
    if token_list(other) != token_list(tokenizer):
        raise ValueError(f"--draft {draft}: its tokenizer is not that of {directory}")
    return TextGenerator(model, tokenizer, small, k)


def token_list(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every token, by id."""
    return [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]


def generate_text(generator: TextGenerator, prompt: str, max_new_tokens: int, sampling: Sampling,
                  stop: str | Iterable[str] = (), top: int = 0, say: Callable[[str], None] = lambda text: None,
                  new_text: Callable[..., TextStream] = TextStream, special: bool | None = None) -> dict:
    """Continue a prompt; say(piece) gets the text as it comes, never half a character, nothing of a stop string.

    The text ends with an end token (which is not part of it), with one of the strings in `stop`, or after
    max_new_tokens. new_text: makes a TextStream, such as output_filter.FilteredText. special: whether special tokens
    in the prompt are tokens or text (None: ValueError). Returns {"text", "finish": "stop" or "length", "seed",
    "tokens": [{"id", "text", "logprob", "top"}]}, the tokens whose text begins in the text.
    """
    tokenizer, text = generator.tokenizer, new_text(generator.tokenizer, stop)
    ids = tokenizer.encode(prompt, "all" if special else (), "all" if special is None else ())
    ids = opened(tokenizer, ids) or [first_token(tokenizer)]
    written, tokens = "", list[dict]()
    for step, piece in spoken(token_steps(generator, ids, max_new_tokens, sampling, top), text):
        tokens += [described(step, tokenizer)] if step else []
        written += piece
        say(piece)
    ended = text.stopped is not None or len(tokens) < max_new_tokens                # the latter by an end token
    if text.stopped is not None:
        while tokens and len(tokenizer.decode([token["id"] for token in tokens[:-1]])) >= len(written):
            tokens.pop()                                    # of the stop string and what came with it
    return {"text": written, "finish": "stop" if ended else "length", "seed": sampling.seed, "tokens": tokens}


def spoken(steps: Iterable[Step], text: TextStream, ends: set[int] | None = None) -> Iterator[tuple[Step | None, str]]:
    """Each Step with the text that is certain by it, up to an end token or a stop string; None with the rest of it."""
    ends = end_tokens(text.tokenizer) if ends is None else ends
    for step in steps:
        if step.token in ends:
            break
        yield step, text.push(step.token)
        if text.stopped is not None:
            break
    yield None, text.finish()


def text_of(tokens: Iterable[int], tokenizer: Tokenizer, stop: str | Iterable[str] = (),
            ends: set[int] | None = None) -> str:
    """The text of an answer's tokens as they are generated, up to an end token or one of the strings in `stop`."""
    steps = (Step(token, 0.0, []) for token in tokens)
    return "".join(piece for _, piece in spoken(steps, TextStream(tokenizer, stop), ends))


def token_steps(generator: TextGenerator, ids: list[int], max_new_tokens: int, sampling: Sampling,
                top: int) -> Iterator[Step]:
    """The Steps of a text, by speculative decoding if there is a draft; the same distribution either way."""
    settings = ids, max_new_tokens, sampling, None, top                     # where it ends, `spoken` knows
    if generator.draft is None:
        return steps(generator.model, *settings)
    return speculative.speculative_steps(generator.model, generator.draft, *settings, generator.k, generator.counts)


def described(step: Step, tokenizer: Tokenizer) -> dict:
    """A Step as a dict for JSON."""
    def one(token: int, logprob: float) -> dict:
        return {"id": token, "text": tokenizer.decode([token]), "logprob": logprob}
    return one(step.token, step.logprob) | {"top": [one(*alternative) for alternative in step.top]}


def first_token(tokenizer: Tokenizer) -> int:
    """The token that an empty prompt stands for: what a text begins after."""
    start = document_start(tokenizer)
    if start is None:
        raise ValueError("--prompt must not be empty: this tokenizer has no <|endoftext|> to begin with")
    return start
