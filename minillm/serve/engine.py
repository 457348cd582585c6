"""The engine: many requests, one model, one thread. Every pass of its loop moves all of them one token forward.

    admit      requests that wait, in order of arrival, get the free rows of the key/value cache
    prefill    the prompts are read, at most `chunk` tokens a pass, so that a long one does not stop the others
    decode     one batched step gives every row that has read its prompt its next token
    deliver    the text that is now certain goes out; a row that ends is free for the next request in this same pass

This is continuous batching (Yu et al. 2022, Orca, OSDI): the weights are read once for all rows, and nobody waits for
the longest answer of a batch. A request's tokens depend on its own prompt, settings and seed alone: decode treats rows
apart, prompts are cut at fixed places, and draws are keyed by (seed, position). So it gets the same answer alone and in
a crowd.

With a draft, a request that finds the engine idle is answered by speculative decoding: sooner, with the same tokens if
greedy, with the same distribution if sampled. So one that is sampled from a seed of the client's is left out.
"""
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..generation.decode import Step
from ..generation.sampling import Sampling, log_probability, sample, top_logprobs
from ..generation.speculative import Counts
from ..generation.speculative import steps as speculative_steps
from ..generation.text import TextStream
from .metrics import Counter, Histogram, gauge

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """No room for the request now."""


class ShuttingDown(Exception):
    """The server takes no requests any more, or stopped before this one began."""


@dataclass(eq=False)
class Job:
    """One answer to write. `put` is called on the engine's thread with each Piece, or an exception that ends it."""

    ids: list                       # the prompt's tokens
    max_tokens: int
    put: object
    sampling: Sampling = Sampling()
    stop: tuple = ()                # strings that end the answer and are not part of it
    stop_ids: frozenset = frozenset()
    top: int = 0                    # how many of the likeliest tokens to report beside each one written
    score: bool = False             # whether to report the prompt's tokens as well, in prompt_steps
    repeatable: bool = True         # whether the same seed must give the same tokens, however they are found
    cancelled: bool = False
    counts: Counts | None = None    # of the guesses, where a draft made some
    prompt_steps: list = field(default_factory=list)    # a Step for each token of the prompt but the first
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class Piece:
    """Text that is certain, and the tokens whose text begins in it. The last has a finish_reason."""

    text: str
    steps: list                     # [(place, generate.Step)]: the place in the answer's text, in characters
    n_tokens: int                   # tokens written so far, those that ended the answer included
    finish_reason: str | None = None


class Writer:
    """A job in a row: the tokens so far, and what of their text may go out."""

    def __init__(self, job, row, tokenizer, new_text=TextStream):
        self.job, self.row, self.tokenizer = job, row, tokenizer
        self.seen = list(job.ids)           # prompt and answer
        self.fed = 0                        # tokens of the prompt that the cache holds
        self.n_tokens = 0
        self.guessed = None                 # the steps of speculative decoding, if that writes the answer
        self.text = new_text(tokenizer, job.stop)
        self.held = deque()                 # (place, step) of tokens whose text is held back
        self.n_out = 0                      # characters that went out

    @property
    def reading(self):
        """Whether there is something of the prompt left to read."""
        return self.guessed is None and self.fed < len(self.job.ids)

    def push(self, step):
        """The next token; returns the Piece that it makes certain, or None."""
        self.n_tokens += 1
        self.seen.append(step.token)
        if step.token in self.job.stop_ids:
            return self.end("stop")
        self.held.append((self.place(step.token), step))
        text = self.text.push(step.token)
        self.n_out += len(text)
        if self.text.stopped is not None:
            return Piece(text, self.certain(), self.n_tokens, "stop")
        if self.n_tokens == self.job.max_tokens:
            return self.end("length", text)
        return Piece(text, self.certain(), self.n_tokens) if text else None

    def place(self, token):
        """Where in the text a token begins; one that does not go on with an unfinished character begins after it."""
        unfinished = self.text.decoder.getstate()[0]
        goes_on = b"\x80" <= self.tokenizer.token_bytes(token)[:1] < b"\xc0"
        return self.n_out + len(self.text.held) + (1 if unfinished and not goes_on else 0)

    def certain(self):
        """The steps whose text begins before what is held back."""
        steps = []
        while self.held and self.held[0][0] < self.n_out:
            steps.append(self.held.popleft())
        return steps

    def end(self, reason, text=""):
        """The last Piece, with all that was held back."""
        return Piece(text + self.text.finish(), list(self.held), self.n_tokens, reason)


class Engine:
    """Call `start`, then `submit` jobs from any thread; `close` ends it."""

    def __init__(self, model, tokenizer, n_rows=8, n_waiting=64, chunk=256, draft=None, k=4, new_text=TextStream):
        """n_rows: answers written at the same time. n_waiting: jobs that may wait. chunk: prompt tokens read a pass.

        draft: a GPT with the model's vocabulary, or a speculative.Lookup, that makes up to k guesses at a time.
        new_text: what makes text of tokens, such as safety.FilteredText.
        """
        self.new_text, self.filtered = new_text, new_text is not TextStream
        self.model, self.tokenizer, self.chunk, self.draft, self.k = model, tokenizer, chunk, draft, k
        self.n_rows, self.n_waiting = n_rows, n_waiting
        self.cache = model.new_cache(n_rows)
        self.free = list(range(n_rows))
        self.writers = []                           # those that have a row, in order of arrival
        self.waiting = deque()
        self.changed = threading.Condition()        # guards `waiting` and `deadline`
        self.deadline = None                        # when closing: the time (monotonic) at which all is cut short
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self.metrics, self.created = engine_metrics(), int(time.time())

    def start(self):
        self.thread.start()

    @property
    def healthy(self):
        return self.thread.is_alive() and self.deadline is None

    def submit(self, jobs):
        """Queue all of these jobs, or none: raises QueueFull or ShuttingDown."""
        with self.changed:
            if self.deadline is not None:
                raise ShuttingDown("the server is shutting down")
            if len(self.waiting) + len(jobs) > self.n_waiting + max(0, self.n_rows - len(self.writers)):
                self.metrics["rejected"].add()
                raise QueueFull(f"{len(self.waiting)} requests are waiting already")
            self.waiting.extend(jobs)
            self.changed.notify()

    def cancel(self, jobs):
        """Forget these jobs: those that wait leave the queue now, those that have a row at the engine's next pass."""
        with self.changed:
            for job in jobs:
                job.cancelled = True
            self.waiting = deque(job for job in self.waiting if not job.cancelled)

    def close(self, grace=0.0):
        """Take no more jobs; what runs may finish within `grace` seconds, then it is cut (finish_reason "length")."""
        with self.changed:
            self.deadline = min(self.deadline or float("inf"), time.monotonic() + grace)
            self.changed.notify()

    def run(self):
        """The thread's main function: passes while there is work."""
        while self.work():
            try:
                self.step()
            except Exception as error:      # a request must not take the server with it: all that run get the error
                self.drop_all(error)

    def work(self):
        """Wait until there is something to do; False once closed and done."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.writers or self.deadline is not None)
            late = self.deadline is not None and time.monotonic() >= self.deadline
        if late:
            self.cut_short()
        return bool(self.waiting or self.writers or self.deadline is None)

    def step(self):
        self.admit()
        self.prefill()
        self.decode()
        self.guess()

    def admit(self):
        """Rows of cancelled jobs become free, and free rows go to those that wait."""
        for writer in [w for w in self.writers if w.job.cancelled]:
            self.metrics["finished"].add(1, "cancelled")
            self.release(writer)
        with self.changed:
            while self.free and self.waiting:
                job = self.waiting.popleft()
                self.metrics["queue_seconds"].observe(time.monotonic() - job.arrived)
                self.metrics["prompt_tokens"].add(len(job.ids))
                self.writers.append(Writer(job, self.free.pop(0), self.tokenizer, self.new_text))
            idle = len(self.writers) == 1 and not self.waiting
        if idle and self.draft is not None:
            self.guess_ahead(self.writers[0])

    def guess_ahead(self, writer):
        """Let speculative decoding write this answer, if it has not begun and its tokens may be found that way."""
        job = writer.job
        begun = writer.fed or writer.guessed or job.score
        spare = self.tokenizer.vocab_size < self.model.config.vocab_size        # ids that no guess may draw
        if begun or spare or (job.repeatable and job.sampling.temperature > 0):
            return
        job.counts = Counts()
        writer.guessed = speculative_steps(self.model, self.draft, job.ids, job.max_tokens, job.sampling, top=job.top,
                                           k=self.k, counts=job.counts)

    def prefill(self):
        """Read on in the prompts, oldest first, up to `chunk` tokens."""
        budget = self.chunk
        for writer in [w for w in self.writers if w.reading]:
            part = writer.job.ids[writer.fed:writer.fed + self.chunk]      # cut where it would be cut alone
            if len(part) > budget:
                return
            budget -= len(part)
            logits = self.model.decode(np.array([part]), self.cache, rows=np.array([writer.row]),
                                       last=not writer.job.score)[0]            # (1 or T, V)
            writer.fed += len(part)
            if writer.job.score:
                self.score(writer.job, writer.fed - len(part), logits)
            if not writer.reading:
                self.write(writer, logits[-1])

    def score(self, job, start, logits):
        """How likely each token of the prompt was where it stood: logits (T, V) follow its tokens from `start` on."""
        for row, token in zip(logits[:, :self.tokenizer.vocab_size], job.ids[start + 1:]):
            job.prompt_steps.append(Step(token, log_probability(row, token), top_logprobs(row, job.top)))

    def decode(self):
        """One token more for every row that has read its prompt."""
        ready = sorted((w for w in self.writers if not w.reading and not w.guessed), key=lambda writer: writer.row)
        if not ready:
            return
        start = time.perf_counter()
        tokens = np.array([[writer.seen[-1]] for writer in ready])                             # (B, 1)
        logits = self.model.decode(tokens, self.cache, rows=np.array([writer.row for writer in ready]), last=True)
        for writer, row in zip(ready, logits[:, -1]):                                          # (B, 1, V) -> (V,)
            self.write(writer, row)
        self.metrics["step_seconds"].observe(time.perf_counter() - start)

    def guess(self):
        """The next token of an answer that is written by guessing ahead."""
        for writer in [w for w in self.writers if w.guessed]:
            self.push(writer, partial(next, writer.guessed))

    def write(self, writer, logits):
        """Draw a token from logits (V,)."""
        job, logits = writer.job, logits[:self.tokenizer.vocab_size]      # a model may have rows to spare
        self.push(writer, lambda: Step(*sample(logits, job.sampling, writer.n_tokens, writer.seen),
                                       top_logprobs(logits, job.top)))

    def push(self, writer, draw):
        """Deliver what becomes certain by the step that is drawn. A job whose logits are no numbers fails alone."""
        try:
            piece = writer.push(draw())
        except ValueError as error:
            return self.fail(writer, error)
        self.metrics["generated_tokens"].add()
        if writer.n_tokens == 1:
            self.metrics["first_token_seconds"].observe(time.monotonic() - writer.job.arrived)
        if piece is not None:
            self.deliver(writer, piece)

    def deliver(self, writer, piece):
        if piece.finish_reason:
            self.metrics["finished"].add(1, piece.finish_reason)
            if counts := writer.job.counts:
                self.metrics["guesses"].add(counts.accepted, "accepted")
                self.metrics["guesses"].add(counts.drafted - counts.accepted, "rejected")
            self.release(writer)
        writer.job.put(piece)

    def fail(self, writer, error):
        log.error("an answer failed: %s", error, exc_info=error)
        self.metrics["finished"].add(1, "error")
        self.release(writer)
        writer.job.put(error)

    def release(self, writer):
        """Give the row back."""
        self.writers.remove(writer)
        self.cache.reset(writer.row)
        self.free.append(writer.row)

    def drop_all(self, error):
        for writer in list(self.writers):
            self.fail(writer, error)

    def cut_short(self):
        """The time to finish is over: answers end where they are, jobs that never began are refused."""
        for writer in list(self.writers):
            self.deliver(writer, writer.end("length"))
        with self.changed:
            left, self.waiting = self.waiting, deque()
        for job in left:
            job.put(ShuttingDown("the server is shutting down"))

    def metric_lines(self):
        yield from gauge("minillm_requests_running", "Answers being written.", len(self.writers))
        yield from gauge("minillm_requests_waiting", "Answers waiting for a row.", len(self.waiting))
        yield from gauge("minillm_rows", "Answers that can be written at the same time.", self.n_rows)
        for metric in self.metrics.values():
            yield from metric.lines()


def engine_metrics():
    return {
        "prompt_tokens": Counter("minillm_prompt_tokens_total", "Prompt tokens admitted."),
        "generated_tokens": Counter("minillm_generated_tokens_total", "Tokens written."),
        "finished": Counter("minillm_answers_total", "Answers that ended, by reason.", "finish_reason"),
        "guesses": Counter("minillm_draft_tokens_total", "Tokens that a draft guessed, by outcome.", "outcome"),
        "rejected": Counter("minillm_rejected_total", "Requests refused because the queue was full."),
        "queue_seconds": Histogram("minillm_queue_seconds", "Time from arrival to a row."),
        "first_token_seconds": Histogram("minillm_first_token_seconds", "Time from arrival to the first token."),
        "step_seconds": Histogram("minillm_step_seconds", "Time of one batched decoding step."),
    }
