"""`minillm quickstart --full`: from raw text to an aligned model, every stage evaluated.

    clean, deduplicate     Python's documentation, as in the quickstart, its pages of help under every name that leads
                           to one (so there are duplicates), and stories of a grammar
    tokenizer, pretrain    one GPT on both
    fine-tune (SFT)        on requests for stories, and answers that a program can judge (data/sources/instructions.py)
    preferences (DPO)      stories that end well are chosen over the same with a bad end; a cruel story is declined, and
                           its harmless twin is told
    distil, speculate      a draft a tenth as large learns from the model, for speculative decoding

After each stage the same metrics are taken on held-out text and held-out requests, so that gains are seen, and where
there is none, or a loss, that is seen, too. The report is one HTML page.
"""
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import GPTConfig, TrainConfig
from ..data.cleaning.document import CleanOptions
from ..data.cleaning.pipeline import clean
from ..data.cleaning.report import clean_page
from ..data.dedup.pipeline import dedup
from ..data.dedup.report import dedup_page
from ..data.shards.format import Shards, open_shards
from ..data.shards.prepare import TrainingData
from ..data.shards.tokenize import tokenize
from ..data.sources import conversations, instructions
from ..data.sources.pydocs import describe_corpus, help_pages, pydoc_corpus
from ..data.sources.stories import stories
from ..evaluate import card, perplexity, safety, samples
from ..evaluate.measure import Measured, accuracy, compared, running_text
from ..evaluate.statistics import interval
from ..generation.decode import steps
from ..generation.sampling import Sampling
from ..generation.speculative import Counts, speculative_steps
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..models.packing import Batch
from ..posttrain import dpo
from ..posttrain.distill import distill_step
from ..posttrain.finetune import with_marks
from ..posttrain.grpo import sample_group
from ..posttrain.sft import ChatData
from ..progress import Progress, clock
from ..storage.atomic import atomic_write, write_json, write_jsonl
from ..tokenizer import Tokenizer
from ..tokenizer import chat_template as chat
from ..tokenizer.roles import EndOfText
from ..train.log import read_log
from ..train.loop import train
from ..train.origin import begin
from . import story_report
from .quickstart import Say, describe_model, planned

VOCAB = 4096
MODEL: dict[str, Any] = {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256}
DRAFT: dict[str, Any] = {"n_layer": 1, "n_head": 2, "n_embd": 96, "block_size": 256}
SHARES = {"pretrain": 0.5, "sft": 0.2, "dpo": 0.12, "draft": 0.1}           # of the minutes; the rest is evaluation
STORIES, CHATS, PAIRS = 8_000, 3_000, 600
PRETRAIN = TrainConfig(batch_size=8, lr=2e-3, min_lr=1e-4, eval_every=0, save_every=0)
SFT = TrainConfig(batch_size=8, lr=5e-4, min_lr=5e-5, warmup=10, eval_every=0, save_every=0)
DPO = TrainConfig(lr=3e-5, min_lr=3e-6, warmup=5, eval_every=0, save_every=0, weight_decay=0.0)
BETA, NLL_WEIGHT = 0.5, 1.0        # of DPO; these two and its rate were chosen on the development half
DISTIL = TrainConfig(batch_size=8, lr=2e-3, min_lr=2e-4, warmup=10, eval_every=0, save_every=0)
REQUESTS, DELICATE, UNSEEN, ANSWER_TOKENS, DOCUMENTS = 24, 60, 40, 220, 40    # evaluated on
SHOWN = 2                           # requests of each kind whose answers the report shows


def story(out: str | Path = "runs/full", minutes: float = 12.0, seed: int = 0, backend: str = "auto",
          say: Say = print) -> dict:
    """Run every stage in `out`; returns the results, also in out/results.json and out/report.html.

    minutes: for all training together; the number of steps of each stage follows from the machine's speed.
    """
    started, out = time.monotonic(), Path(out)
    run = StoryRun(out, minutes, seed, backend, say)
    results: dict = {"data": prepare_data(run)}
    tokenizer, shards = Tokenizer.from_pretrained(out / "data"), open_shards(out / "data")
    run.held_out = held_out_texts(tokenizer, shards)
    write_jsonl(out / "safety_prompts.jsonl", run.delicate)
    results["untrained"] = untrained(run, tokenizer)
    model, results["speed"] = pretrain(run, tokenizer, shards)
    results["stages"] = [measured(run, "pretrain", "pretrained", model, tokenizer)]
    tuned, chat_tokenizer = fine_tune(run, model, tokenizer, results["speed"])
    results["stages"].append(measured(run, "sft", "fine-tuned", tuned, chat_tokenizer))
    aligned = prefer(run, tuned, chat_tokenizer, results["speed"])
    results["stages"].append(measured(run, "dpo", "aligned", aligned, chat_tokenizer))
    card.write_card(out / "dpo", title="A teller of stories")
    results["speculation"] = speculate(run, aligned, chat_tokenizer, results["speed"])
    results["seconds"] = time.monotonic() - started
    results["curves"] = {name: read_log(out / name) for name in ("pretrain", "sft", "dpo", "draft")}
    write_json(out / "results.json", results, indent=1)
    with atomic_write(out / "report.html") as file:
        file.write(story_report.report_html(results))
    say(story_report.stages_page(results) + f"\n{clock(results['seconds'])} in all; report in {out}/report.html\n"
        f"next: minillm chat {out}/dpo")
    return results


class StoryRun:
    """Settings and held-out sets of every stage. half: which half of the held-out requests and prompts to evaluate on,
    "test" or "development" (data/sources/instructions.py)."""

    def __init__(self, out: Path, minutes: float, seed: int, backend: str, say: Say, half: str = "test"):
        self.out, self.minutes, self.seed, self.backend, self.say = out, minutes, seed, backend, say
        self.ops = select(backend)
        self.requests = instructions.records(REQUESTS, seed + 1_000_000, half)    # training has another seed
        self.delicate = instructions.safety_prompts(DELICATE, seed + 1_000_000, half)
        self.outside = outside_prompts(seed + 1_000_000, half)
        self.answers: list[dict] = []                   # to the delicate prompts, by the stage before
        self.items: dict[str, tuple[list, list]] = {}   # of each metric in the stage before, one by one
        self.held_out: dict[str, list[str]] = {}

    def train(self, stage: str, model: GPT, data: object, config: TrainConfig, eot_token: EndOfText,
              **kwargs: Any) -> dict:
        """Train into out/stage and return the state; Ctrl-C ends the whole job.

        A machine that has become slower has a quarter more time than the stage's share.
        """
        progress, deadline = Progress(stage, "step"), time.monotonic() + 1.25 * 60 * self.minutes * SHARES[stage]
        state = train(model, data, replace(config, seed=self.seed, backend=self.backend), self.out / stage, eot_token,
                      resume=False, progress=progress, deadline=deadline, **kwargs)
        progress.close()
        if state["step"] < config.steps and time.monotonic() < deadline:
            raise KeyboardInterrupt
        return state


def outside_prompts(seed: int, half: str) -> list[dict]:
    """Out-of-distribution prompts: twins with unseen deeds, and the bundled red team's, as two groups."""
    return (instructions.safety_prompts(UNSEEN, seed, half, unseen=True)
            + [{**prompt, "category": "red team: " + ("harmful" if prompt["harmful"] else "harmless")}
               for prompt in safety.read_prompts()])


def prepare_data(run: StoryRun) -> dict:
    """Raw documents -> clean -> without duplicates -> tokenizer and shards in out/data. Returns what each step left."""
    out = run.out
    (out / "raw").mkdir(parents=True, exist_ok=True)
    documents, pages = pydoc_corpus(), help_pages()
    for name, found in (("docs", documents), ("help", pages)):
        write_jsonl(out / "raw" / f"{name}.jsonl", [{"text": text, "source": source} for source, text in found])
    write_jsonl(out / "raw" / "stories.jsonl", [{"text": text, "source": f"story {i}"}
                                                for i, text in enumerate(stories(STORIES, run.seed))])
    run.say(f"corpus      {describe_corpus(documents)}; {len(pages)} pages of help(), many under several names; "
            f"{STORIES:,} stories from a grammar")
    cleaned = clean([out / "raw"], out / "clean.jsonl", CleanOptions(bounds=CODE_BOUNDS))
    run.say("cleaning    " + clean_page(cleaned, out / "clean.jsonl").replace("\n", "\n            "))
    kept = dedup([out / "clean.jsonl"], out / "kept.jsonl")
    run.say("duplicates  " + dedup_page(kept, out / "kept.jsonl").replace("\n", "\n            "))
    texts = [json.loads(line)["text"] for line in open(out / "kept.jsonl", encoding="utf-8")]
    tokenizer = Tokenizer.train(texts, VOCAB, progress=Progress("tokenizer", ""))
    meta = tokenize([([out / "kept.jsonl"], 1.0)], tokenizer, out / "data", seed=run.seed)
    splits = {k: {n: v[n] for n in ("documents", "tokens", "bytes")} for k, v in meta["splits"].items()}
    return {"read": cleaned["read"], "clean": cleaned["kept"], "reasons": cleaned["dropped"],
            "masked": cleaned["masked"], "kept": kept["kept"], "splits": splits, "help pages": len(pages),
            "duplicates": kept["dropped"], "clusters": kept["examples"]}


# Documentation of code has braces, tables and short pages: what Gopher's rules mean for the web is too strict for it.
CODE_BOUNDS = {"words": (20, 100_000), "alphabetic_words": (0.6, 1), "stop_words": (1, float("inf")),
               "bullet_lines": (0, 1), "mean_word_length": (3, 12)}


def held_out_texts(tokenizer: Tokenizer, shards: Shards) -> dict[str, list[str]]:
    """{"docs": texts, "stories": texts} of the validation split, a few of each."""
    ids = [int(token) for array in shards.val.arrays for token in array]
    texts = [text for text in tokenizer.decode(ids).split("<|endoftext|>") if text]
    told = [text for text in texts if " called " in text[:80] and "lived" in text[:120]]
    others = [text for text in texts if text not in set(told)]
    return {"docs": others[:DOCUMENTS], "stories": told[:DOCUMENTS]}


def untrained(run: StoryRun, tokenizer: Tokenizer) -> dict:
    """The model before its first step, as far as it can be measured: bits per byte, and what it answers."""
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **MODEL), run.seed, ops=run.ops)
    found = text_bits(run, model, tokenizer)
    run.items = items_of(found)
    asked = [(record["messages"][0]["content"], run.seed + i) for i, record in enumerate(run.requests[:SHOWN])]
    delicate = [(record["prompt"], run.seed + i) for i, record in enumerate(run.delicate[:SHOWN])]
    shown = ([(text, answer(model, tokenizer, text, seed)) for text, seed in asked]
             + [(text, safety.reply(model, tokenizer, text, seed, ANSWER_TOKENS)) for text, seed in delicate])
    return {"stage": "untrained", "examples": shown, **values_of(rows_of(found))}


def pretrain(run: StoryRun, tokenizer: Tokenizer, shards: Shards) -> tuple[GPT, float]:
    """(model, steps per second)."""
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **MODEL), run.seed, ops=run.ops)
    data = TrainingData(shards, model.config.block_size, PRETRAIN.batch_size, run.seed)
    config = planned(model, data, PRETRAIN, run.minutes * SHARES["pretrain"], None)
    run.say(f"model       {describe_model(model)}; {config.steps:,} steps")
    begin(run.out / "pretrain", tokenizer, "pretrained", None, "Python's documentation and stories of a grammar",
          shards.train.documents, shards.val.documents)
    started = time.monotonic()
    state = run.train("pretrain", model, data, config, tokenizer.eot_token)
    return GPT.from_pretrained(run.out / "pretrain", run.ops), state["step"] / (time.monotonic() - started)


def steps_for(run: StoryRun, stage: str, speed: float, cost: float) -> int:
    """Steps that fit into a stage's minutes, when one costs `cost` times a step of pretraining."""
    return max(10, int(60 * run.minutes * SHARES[stage] * speed / cost))


def fine_tune(run: StoryRun, model: GPT, tokenizer: Tokenizer, speed: float) -> tuple[GPT, Tokenizer]:
    """Supervised fine-tuning: (model, tokenizer with the marks of the chat template)."""
    tokenizer, model = with_marks(tokenizer, model)
    path = run.out / "chats.jsonl"
    write_jsonl(path, instructions.conversations(CHATS, run.seed))
    examples = conversations.read_examples(path, tokenizer)
    n_steps = steps_for(run, "sft", speed, 1.3)
    data = ChatData(examples, tokenizer, model.config.block_size, SFT.batch_size * model.config.block_size, run.seed)
    begin(run.out / "sft", tokenizer, "fine-tuned", run.out / "pretrain", path, len(data.examples), len(data.held_out))
    run.train("sft", model, data, replace(SFT, steps=n_steps, eval_every=max(10, n_steps // 4)),
              tokenizer.special_tokens[chat.END])
    return GPT.from_pretrained(run.out / "sft", run.ops), tokenizer


def prefer(run: StoryRun, model: GPT, tokenizer: Tokenizer, speed: float, config: TrainConfig = DPO, beta: float = BETA,
           nll_weight: float = NLL_WEIGHT) -> GPT:
    """DPO: the aligned model. Other settings than the story's are tried by `python -m benchmarks.alignment`."""
    path = run.out / "pairs.jsonl"
    write_jsonl(path, instructions.preferences(PAIRS // 2, run.seed) + instructions.refusals(PAIRS // 2, run.seed + 1))
    preferences = conversations.read_preferences(path, tokenizer)
    data = dpo.PreferenceData(preferences, model.config.block_size, 4, run.seed, share=0.05)
    data.refer_to(model)
    n_steps, loss = steps_for(run, "dpo", speed, 2.0), (beta, 0.0, nll_weight)
    begin(run.out / "dpo", tokenizer, "preferences learned", run.out / "sft", path, len(data.preferences),
          len(data.held_out))
    run.train("dpo", model, data, replace(config, steps=n_steps, eval_every=max(10, n_steps // 3)),
              tokenizer.special_tokens[chat.END], step=dpo.dpo_step(*loss), validate=dpo.validate_dpo(*loss),
              columns=dpo.DPO_COLUMNS)
    return GPT.from_pretrained(run.out / "dpo", run.ops)


# ---- evaluation ----

def measured(run: StoryRun, folder: str, stage: str, model: GPT, tokenizer: Tokenizer) -> dict:
    """A row of the report; the records behind it stay in the stage's folder, where `minillm card` finds them."""
    found, examples = text_metrics(run, model, tokenizer)
    declined, answers, unseen = refusals(run, model, tokenizer)
    write_jsonl(run.out / folder / "safety_answers.jsonl", answers)
    tasks = [{"task": name, **row} for name, row in rows_of(found).items()]
    write_json(run.out / folder / card.EVALUATION, {"rows": tasks, "comparisons": []}, indent=1)
    write_json(run.out / folder / card.SAFETY, declined, indent=1)
    found |= refusal_rows(answers, unseen)
    rows, items = rows_of(found), items_of(found)
    changes, run.items = compared(run.items, items), items
    run.say("measured    " + ", ".join(f"{name} {row['value']:.3f}" for name, row in rows.items()))
    examples += [(record["prompt"], record["answer"]) for record in answers[:SHOWN]]
    return {"stage": stage, "examples": examples, "changes": changes, "safety": declined, **values_of(rows)}


def rows_of(found: dict[str, Measured]) -> dict[str, dict]:
    return {name: row for name, (row, _) in found.items()}


def items_of(found: dict[str, Measured]) -> dict[str, tuple[list, list]]:
    """What two stages are compared by."""
    return {name: items for name, (_, items) in found.items() if items}


def values_of(rows: dict[str, dict]) -> dict:
    """{name: value}, and all intervals under "between"."""
    return {"between": {name: [row["low"], row["high"]] for name, row in rows.items()},
            **{name: row["value"] for name, row in rows.items()}}


def text_bits(run: StoryRun, model: GPT, tokenizer: Tokenizer) -> dict[str, Measured]:
    """Bits per byte of held-out text of both kinds."""
    return {f"bpb {kind}": running_text("bpb", perplexity.surprises(model, tokenizer, texts))
            for kind, texts in run.held_out.items() if texts}


def text_metrics(run: StoryRun, model: GPT, tokenizer: Tokenizer) -> tuple[dict[str, Measured], list[tuple[str, str]]]:
    """({name: row and items}, some requests with their answers): bits per byte; of answers to held-out requests:
    followed, ends well, repetition."""
    requests = [record["messages"][0]["content"] for record in run.requests]
    answers = [answer(model, tokenizer, request, run.seed + i) for i, request in enumerate(requests)]
    found = text_bits(run, model, tokenizer) | {
        "followed": mean([instructions.followed(text, r["asked"]) for text, r in zip(answers, run.requests)]),
        "ends well": accuracy([instructions.ends_well(text) for text in answers]),
        "repetition": mean([samples.repetition(text) for text in answers])}
    return found, list(zip(requests, answers))[:SHOWN]


def mean(values: list[float]) -> Measured:
    """The mean, its bootstrap interval, and what it is the mean of."""
    ones = [1.0] * len(values)
    low, high = interval(values, ones)
    return {"value": statistics.mean(values), "low": low, "high": high, "items": len(values)}, (values, ones)


def refusals(run: StoryRun, model: GPT, tokenizer: Tokenizer) -> tuple[dict, list[dict], list[dict]]:
    """(what `minillm safety --json` prints, every answer, those to requests with unseen words): refusals and toxicity
    on held-out harmful requests and their harmless twins, and what changed since the stage before. "outside": the same
    on out-of-distribution prompts.
    """
    answers = safety.red_team(model, tokenizer, run.delicate, run.seed, max_new_tokens=ANSWER_TOKENS)
    outside = safety.red_team(model, tokenizer, run.outside, run.seed)
    changes = safety.changes(run.answers, answers) if run.answers else []
    run.answers = answers
    return ({"rates": safety.rates(answers)[2:], "changes": changes, "outside": safety.rates(outside)[2:]}, answers,
            outside[:UNSEEN])


def refusal_rows(answers: list[dict], unseen: list[dict]) -> dict[str, Measured]:
    """The shares of refused requests, harmful and harmless, with words of the training and others; of toxic answers."""
    groups = {"refused harmful": (answers, True, "refused"), "refused harmless": (answers, False, "refused"),
              "refused unseen": (unseen, True, "refused"), "refused unseen harmless": (unseen, False, "refused"),
              "toxic": (answers, True, "toxic")}
    shares = {name: [record[measure] for record in records if record["harmful"] == harmful]
              for name, (records, harmful, measure) in groups.items()}
    return {name: accuracy(values) for name, values in shares.items() if None not in values}


def prompt_of(tokenizer: Tokenizer, request: str) -> tuple[list[int], int | None]:
    """(ids to continue, id that ends the answer); before fine-tuning a request is just a text."""
    if chat.END in tokenizer.special_tokens:
        return chat.encode_prompt(tokenizer, [instructions.user(request)]), tokenizer.special_tokens[chat.END]
    return tokenizer.encode_ordinary(request + "\n\n"), tokenizer.eot_token


def answer(model: GPT, tokenizer: Tokenizer, request: str, seed: int) -> str:
    """The model's answer to one request, sampled at temperature 0.7."""
    prompt, stop = prompt_of(tokenizer, request)
    room = min(ANSWER_TOKENS, model.config.block_size - len(prompt))
    (ids,) = sample_group(model, prompt, 1, room, stop, (seed,), temperature=0.7)
    return tokenizer.decode([id for id in ids if id != stop])


# ---- speculative decoding ----

def speculate(run: StoryRun, model: GPT, tokenizer: Tokenizer, speed: float) -> dict:
    """Distil a draft and time plain against speculative decoding, in turns; greedy texts must be equal."""
    draft = GPT(GPTConfig(vocab_size=model.config.vocab_size, **DRAFT), run.seed, ops=run.ops)
    examples = conversations.read_examples(run.out / "chats.jsonl", tokenizer)
    data = ChatData(examples, tokenizer, DRAFT["block_size"], DISTIL.batch_size * DRAFT["block_size"], run.seed)
    n_steps = steps_for(run, "draft", speed, 1.0)
    chat.save_tokenizer(tokenizer, run.out / "draft")
    run.train("draft", draft, Padded(data), replace(DISTIL, steps=n_steps, eval_every=n_steps),
              tokenizer.special_tokens[chat.END], step=distill_step(model))
    draft, counts, speedups, same = GPT.from_pretrained(run.out / "draft", run.ops), Counts(), [], []
    for record in run.requests[:8]:
        prompt, stop = prompt_of(tokenizer, record["messages"][0]["content"])
        started = time.perf_counter()
        plain = [step.token for step in steps(model, prompt, 120, Sampling(0.0), stop)]
        between = time.perf_counter()
        drafted = [step.token
                   for step in speculative_steps(model, draft, prompt, 120, Sampling(0.0), stop, counts=counts)]
        speedups.append((between - started) / (time.perf_counter() - between))
        same.append(plain == drafted)
    return {"acceptance": counts.acceptance, "tokens per pass": counts.tokens_per_pass, "texts equal": all(same),
            "speed-up": statistics.median(speedups), "speed-ups": speedups, "draft parameters": draft.params.flat.size,
            "target parameters": model.params.flat.size}


class Padded:
    """ChatData unpacked for distillation: batches (B, T), one example a row, padded; the padding has no loss."""

    def __init__(self, data: ChatData):
        self.data, self.fingerprint = data, data.fingerprint
        self.validation_tokens, self.validation_bytes, self.validation = (data.validation_tokens, data.validation_bytes,
                                                                          data.validation)

    def batch(self, step: int, micro: int = 0) -> Batch:
        """tokens, targets (B, T)."""
        tokens, targets, lengths = self.data.batch(step, micro)
        return Batch(unpacked(tokens, lengths or [], 0), unpacked(targets, lengths or [], -1))


def unpacked(row: np.ndarray, lengths: Sequence[int], filler: int) -> np.ndarray:
    """(1, N) packed -> (documents, longest), padded with `filler`."""
    out = np.full((len(lengths), max(lengths)), filler, row.dtype)
    for place, part in zip(out, np.split(row[0], np.cumsum(lengths)[:-1])):
        place[:len(part)] = part
    return out
