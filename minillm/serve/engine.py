"""Continuous batching: many requests, one model, one thread. Each pass decodes one token of every active sequence.

    admit      queued requests, in order of arrival, get the free slots of the KV cache
    prefill    prompts are read in chunks, at most `chunk` tokens a pass, so that a long one does not stop the others
    decode     one batched step gives every sequence whose prefill is done its next token
    deliver    the text that is now certain goes out; the slot of a finished sequence is free for the next request

(Yu et al. 2022, Orca, OSDI.) The weights are read once for all slots, and nobody waits for the longest answer of a
batch. A request's tokens depend on its own prompt, settings and seed alone: decode treats slots apart, prompts are cut
at fixed places, and draws are keyed by (seed, position). So it gets the same answer alone and in a crowd, and with the
beginning of its prompt already in the KV cache of another (prefixes.py).

With a draft, a request that finds the engine idle is answered by speculative decoding: sooner, with the same tokens if
greedy, with the same distribution if sampled. So one that is sampled from a seed of the client's is left out.
"""
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..generation.decode import Step
from ..generation.grammar import Grammar
from ..generation.sampling import Sampling, log_probability, sample, top_logprobs
from ..generation.speculative import Counts, Lookup, speculative_steps
from ..generation.text import TextStream
from ..models.gpt2 import GPT
from ..tokenizer import Tokenizer
from .metrics import Counter, Histogram, gauge
from .prefixes import Prefixes

log = logging.getLogger(__name__)
PART = 128          # tokens of a prompt that are read at once; prefixes of prompts are kept in such parts


class QueueFull(Exception):
    """No room for the request now."""


class ShuttingDown(Exception):
    """The server takes no requests any more, or stopped before this one began."""


@dataclass(eq=False)
class Job:
    """One answer to generate. `put` is called on the engine's thread with each Piece, or an exception that ends it."""

    ids: list[int]                  # the prompt's tokens
    max_tokens: int
    put: Callable[["Piece | Exception"], object]
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()      # strings that end the answer and are not part of it
    stop_ids: frozenset[int] = frozenset()
    top: int = 0                    # how many of the most probable tokens to report beside each one
    score: bool = False             # whether to report the prompt's log-probabilities as well, in prompt_steps
    repeatable: bool = True         # whether the same seed must give the same tokens, however they are found
    cancelled: bool = False
    grammar: Grammar | None = None  # what the answer must follow
    shown: frozenset[int] = frozenset()         # special tokens whose text is part of the answer's
    counts: Counts | None = None    # of speculative decoding, where it was used
    n_cached: int = 0               # tokens of the prompt that the KV cache held already
    prompt_steps: list[Step] = field(default_factory=list)      # one for each token of the prompt but the first
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class Piece:
    """Text that is certain, and the tokens whose text begins in it. The last has a finish_reason."""

    text: str
    steps: list[tuple[int, Step]]   # each with its place in the answer's text, in characters
    n_tokens: int                   # tokens generated so far, those that ended the answer included
    finish_reason: str | None = None


class ActiveSequence:
    """A job in a slot of the KV cache: the tokens so far, and what of their text may go out."""

    def __init__(self, job: Job, slot: int, tokenizer: Tokenizer, new_text: Callable[..., TextStream] = TextStream):
        self.job, self.slot, self.tokenizer = job, slot, tokenizer
        self.seen = list(job.ids)           # prompt and answer
        self.fed = 0                        # tokens of the prompt that the cache holds
        self.n_tokens = 0
        self.speculative: Iterator[Step] | None = None              # of speculative decoding, if that gives the answer
        self.text = new_text(tokenizer, job.stop)
        self.text.special -= job.shown
        self.grammar = job.grammar.begin(job.stop_ids) if job.grammar else None
        self.held: deque[tuple[int, Step]] = deque()                # (place, step) of tokens whose text is held back
        self.n_out = 0                      # characters that went out

    @property
    def prefilling(self) -> bool:
        """Whether some of the prompt is not in the KV cache yet."""
        return self.speculative is None and self.fed < len(self.job.ids)

    def push(self, step: Step) -> Piece | None:
        """The next token; returns the Piece that it makes certain, or None."""
        self.n_tokens += 1
        self.seen.append(step.token)
        if step.token in self.job.stop_ids:
            return self.end("stop")
        if self.grammar:
            self.grammar.push(step.token)
        self.held.append((self.place(step.token), step))
        text = self.text.push(step.token)
        self.n_out += len(text)
        if self.text.stopped is not None:
            return Piece(text, self.certain(), self.n_tokens, "stop")
        if self.grammar and self.grammar.complete:
            return self.end("stop", text)
        if self.n_tokens == self.job.max_tokens:
            return self.end("length", text)
        return Piece(text, self.certain(), self.n_tokens) if text else None

    def place(self, token: int) -> int:
        """Where in the text a token begins; one that does not go on with an unfinished character begins after it."""
        unfinished = self.text.decoder.getstate()[0]
        goes_on = b"\x80" <= self.tokenizer.token_bytes(token)[:1] < b"\xc0"
        return self.n_out + len(self.text.held) + (1 if unfinished and not goes_on else 0)

    def certain(self) -> list[tuple[int, Step]]:
        """The steps whose text begins before what is held back."""
        steps = []
        while self.held and self.held[0][0] < self.n_out:
            steps.append(self.held.popleft())
        return steps

    def end(self, reason: str, text: str = "") -> Piece:
        """The last Piece, with all that was held back."""
        return Piece(text + self.text.finish(), list(self.held), self.n_tokens, reason)


class Engine:
    """Call `start`, then `submit` jobs from any thread; `close` ends it."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, n_slots: int = 8, n_waiting: int = 64, chunk: int = 256,
                 draft: GPT | Lookup | None = None, k: int = 4, new_text: Callable[..., TextStream] = TextStream):
        """n_slots: sequences decoded concurrently. n_waiting: jobs that may wait. chunk: tokens of prefill in a pass.

        draft: a GPT with the model's vocabulary, or a speculative.Lookup, that proposes up to k tokens a pass.
        new_text: makes a TextStream, such as output_filter.FilteredText.
        """
        self.new_text, self.filtered = new_text, new_text is not TextStream
        self.model, self.tokenizer, self.chunk, self.draft, self.k = model, tokenizer, chunk, draft, k
        self.n_slots, self.n_waiting = n_slots, n_waiting
        self.cache = model.new_cache(n_slots)
        self.prefixes = Prefixes(self.cache, min(chunk, PART))
        self.free_slots = list(range(n_slots))
        self.active: list[ActiveSequence] = []      # those that have a slot, in order of arrival
        self.waiting: deque[Job] = deque()
        self.changed = threading.Condition()        # guards `waiting` and `deadline`
        self.deadline: float | None = None          # when closing: the time (monotonic) at which all is cut short
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self.metrics, self.created = engine_metrics(), int(time.time())

    def start(self) -> None:
        self.thread.start()

    @property
    def healthy(self) -> bool:
        return self.thread.is_alive() and self.deadline is None

    def submit(self, jobs: list[Job]) -> None:
        """Queue all of these jobs, or none: raises QueueFull or ShuttingDown."""
        with self.changed:
            if self.deadline is not None:
                raise ShuttingDown("the server is shutting down")
            if len(self.waiting) + len(jobs) > self.n_waiting + max(0, self.n_slots - len(self.active)):
                self.metrics["rejected"].add()
                raise QueueFull(f"{len(self.waiting)} requests are waiting already")
            self.waiting.extend(jobs)
            self.changed.notify()

    def cancel(self, jobs: list[Job]) -> None:
        """Forget these jobs: those that wait leave the queue now, those that have a slot at the engine's next pass."""
        with self.changed:
            for job in jobs:
                job.cancelled = True
            self.waiting = deque(job for job in self.waiting if not job.cancelled)

    def close(self, grace: float = 0.0) -> None:
        """Take no more jobs; what runs may finish within `grace` seconds, then it is cut (finish_reason "length")."""
        with self.changed:
            self.deadline = min(self.deadline or float("inf"), time.monotonic() + grace)
            self.changed.notify()

    def run(self) -> None:
        """The thread's main function: passes while there is work."""
        while self.work():
            try:
                self.step()
            except Exception as error:      # a request must not take the server with it: all that run get the error
                self.drop_all(error)

    def work(self) -> bool:
        """Wait until there is something to do; False once closed and done."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.waiting or self.active or self.deadline is not None))
            late = self.deadline is not None and time.monotonic() >= self.deadline
        if late:
            self.cut_short()
        return bool(self.waiting or self.active or self.deadline is None)

    def step(self) -> None:
        """One pass: what is active moves on by one token."""
        self.admit()
        self.prefill()
        self.decode()
        self.speculate()

    def admit(self) -> None:
        """Slots of cancelled jobs become free, and free slots go to those that wait."""
        for sequence in [s for s in self.active if s.job.cancelled]:
            self.metrics["finished"].add(1, "cancelled")
            self.release(sequence)
        with self.changed:
            while self.free_slots and self.waiting:
                job = self.waiting.popleft()
                self.metrics["queue_seconds"].observe(time.monotonic() - job.arrived)
                self.metrics["prompt_tokens"].add(len(job.ids))
                slot = self.prefixes.best_slot(job.ids, self.free_slots)
                self.free_slots.remove(slot)
                self.active.append(ActiveSequence(job, slot, self.tokenizer, self.new_text))
            idle = len(self.active) == 1 and not self.waiting
        if idle and self.draft is not None:
            self.begin_speculation(self.active[0], self.draft)

    def begin_speculation(self, sequence: ActiveSequence, draft: GPT | Lookup) -> None:
        """Answer by speculative decoding, if the sequence has not begun and its tokens may be found that way."""
        job = sequence.job
        begun = sequence.fed or sequence.speculative or job.score or job.grammar or not job.max_tokens
        spare = self.tokenizer.vocab_size < self.model.config.vocab_size        # ids that no draft token may have
        if begun or spare or (job.repeatable and job.sampling.temperature > 0):
            return
        job.counts = Counts()
        sequence.speculative = speculative_steps(self.model, draft, job.ids, job.max_tokens, job.sampling, top=job.top,
                                                 k=self.k, counts=job.counts)

    def prefill(self) -> None:
        """Chunked prefill: prompts into the KV cache, oldest first, up to `chunk` tokens."""
        budget = self.chunk
        for sequence in [s for s in self.active if s.prefilling]:
            if not sequence.fed:
                self.begin(sequence)
            while sequence.prefilling:
                part = sequence.job.ids[sequence.fed:sequence.fed + self.prefixes.part]   # cut where it would be alone
                if len(part) > budget:
                    return
                budget -= len(part)
                self.read(sequence, part)

    def begin(self, sequence: ActiveSequence) -> None:
        """Into the slot what is known of the prompt's beginning; nothing for a score, which needs all its logits."""
        job = sequence.job
        sequence.fed = job.n_cached = self.prefixes.reuse([] if job.score else job.ids, sequence.slot)
        self.metrics["cached_tokens"].add(sequence.fed)

    def read(self, sequence: ActiveSequence, part: list[int]) -> None:
        """A part of a prompt into the KV cache; its last part gives the answer's first token."""
        job = sequence.job
        logits = self.model.decode(np.array([part]), self.cache, rows=np.array([sequence.slot]),
                                   last=not job.score)[0]               # (1 or T, V)
        sequence.fed += len(part)
        self.prefixes.keep(sequence.slot, job.ids[:sequence.fed])
        if job.score:
            self.score(job, sequence.fed - len(part), logits)
        if sequence.prefilling:
            return
        if job.max_tokens:
            self.next_token(sequence, logits[-1])
        else:
            self.deliver(sequence, sequence.end("length"))

    def score(self, job: Job, start: int, logits: np.ndarray) -> None:
        """Log-probabilities of the prompt's own tokens: logits (T, V) follow its tokens from `start` on."""
        for row, token in zip(logits[:, :self.tokenizer.vocab_size], job.ids[start + 1:]):
            job.prompt_steps.append(Step(token, log_probability(row, token), top_logprobs(row, job.top)))

    def decode(self) -> None:
        """One batched step: the next token of every sequence whose prefill is done."""
        ready = sorted((s for s in self.active if not s.prefilling and not s.speculative), key=lambda s: s.slot)
        if not ready:
            return
        start = time.perf_counter()
        tokens = np.array([[sequence.seen[-1]] for sequence in ready])                         # (B, 1)
        logits = self.model.decode(tokens, self.cache, rows=np.array([sequence.slot for sequence in ready]), last=True)
        for sequence, row in zip(ready, logits[:, -1]):                                        # (B, 1, V) -> (V,)
            self.next_token(sequence, row)
        self.metrics["step_seconds"].observe(time.perf_counter() - start)

    def speculate(self) -> None:
        """The next token of a sequence that is decoded speculatively."""
        for sequence in self.active[:]:
            if steps := sequence.speculative:
                self.push(sequence, partial(next, steps))

    def next_token(self, sequence: ActiveSequence, logits: np.ndarray) -> None:
        """Sample a token from logits (V,)."""
        job, logits = sequence.job, logits[:self.tokenizer.vocab_size]      # a model's vocabulary may be padded

        def draw() -> Step:
            allowed = sequence.grammar.allowed() if sequence.grammar else None
            return Step(*sample(logits, job.sampling, sequence.n_tokens, sequence.seen, allowed),
                        top_logprobs(logits, job.top))
        self.push(sequence, draw)

    def push(self, sequence: ActiveSequence, draw: Callable[[], Step]) -> None:
        """Deliver what becomes certain by the step that is drawn. A job whose logits are no numbers fails alone."""
        try:
            piece = sequence.push(draw())
        except ValueError as error:
            return self.fail(sequence, error)
        self.metrics["generated_tokens"].add()
        if sequence.n_tokens == 1:
            self.metrics["first_token_seconds"].observe(time.monotonic() - sequence.job.arrived)
        if piece is not None:
            self.deliver(sequence, piece)

    def deliver(self, sequence: ActiveSequence, piece: Piece) -> None:
        if piece.finish_reason:
            self.metrics["finished"].add(1, piece.finish_reason)
            if counts := sequence.job.counts:
                self.metrics["draft_tokens"].add(counts.accepted, "accepted")
                self.metrics["draft_tokens"].add(counts.drafted - counts.accepted, "rejected")
            self.release(sequence)
        sequence.job.put(piece)

    def fail(self, sequence: ActiveSequence, error: Exception) -> None:
        log.error("an answer failed: %s", error, exc_info=error)
        self.metrics["finished"].add(1, "error")
        self.release(sequence)
        sequence.job.put(error)

    def release(self, sequence: ActiveSequence) -> None:
        """Give the slot back."""
        self.active.remove(sequence)
        self.cache.reset(sequence.slot)
        self.free_slots.append(sequence.slot)

    def drop_all(self, error: Exception) -> None:
        for sequence in list(self.active):
            self.fail(sequence, error)

    def cut_short(self) -> None:
        """The time to finish is over: answers end where they are, jobs that never began are refused."""
        for sequence in list(self.active):
            self.deliver(sequence, sequence.end("length"))
        with self.changed:
            left, self.waiting = self.waiting, deque()
        for job in left:
            job.put(ShuttingDown("the server is shutting down"))

    def metric_lines(self) -> Iterator[str]:
        yield from gauge("minillm_requests_running", "Sequences being decoded.", len(self.active))
        yield from gauge("minillm_requests_waiting", "Requests waiting for a slot.", len(self.waiting))
        yield from gauge("minillm_rows", "Slots: sequences that can be decoded concurrently.", self.n_slots)
        for metric in self.metrics.values():
            yield from metric.lines()


def engine_metrics() -> dict:
    return {
        "prompt_tokens": Counter("minillm_prompt_tokens_total", "Prompt tokens admitted."),
        "cached_tokens": Counter("minillm_cached_prompt_tokens_total", "Prompt tokens found in the KV cache."),
        "generated_tokens": Counter("minillm_generated_tokens_total", "Tokens generated."),
        "finished": Counter("minillm_answers_total", "Answers that ended, by reason.", "finish_reason"),
        "draft_tokens": Counter("minillm_draft_tokens_total", "Draft tokens proposed, by outcome.", "outcome"),
        "rejected": Counter("minillm_rejected_total", "Requests refused because the queue was full."),
        "queue_seconds": Histogram("minillm_queue_seconds", "Time from arrival to a slot."),
        "first_token_seconds": Histogram("minillm_first_token_seconds", "Time from arrival to the first token."),
        "step_seconds": Histogram("minillm_step_seconds", "Time of one batched decoding step."),
    }
