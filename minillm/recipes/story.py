"""`minillm quickstart --full`: the whole way, from raw text to an aligned model, with what each stage brought.

    clean, deduplicate     Python's documentation, as in the quickstart; the stories of a grammar come to it
    tokenizer, pretrain    one GPT on both
    fine-tune              on requests for stories, and answers that a program can judge (data/instructions.py)
    preferences            stories that end well are chosen over the same with a bad end; a cruel story is declined, and
                           its harmless twin is told
    distil, speculate      a draft a tenth as large learns from the model, and guesses ahead for it

After each stage the same things are measured on held-out text and held-out requests, so that gains are seen, and where
there is none, or a loss, that is seen, too. The report is one HTML page.
"""
import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..config import GPTConfig, TrainConfig
from ..data.cleaning.document import CleanOptions
from ..data.cleaning.pipeline import clean
from ..data.cleaning.report import clean_page
from ..data.dedup.pipeline import dedup
from ..data.dedup.report import dedup_page
from ..data.shards.format import open_shards
from ..data.shards.prepare import TrainingData
from ..data.shards.tokenize import tokenize
from ..data.sources import conversations, instructions
from ..data.sources.pydocs import describe_corpus, pydoc_corpus
from ..data.sources.stories import stories
from ..evaluate import card, perplexity, safety, samples
from ..evaluate.measure import accuracy, running_text
from ..evaluate.statistics import interval
from ..generation.decode import steps as plain_steps
from ..generation.sampling import Sampling
from ..generation.speculative import Counts
from ..generation.speculative import steps as speculative_steps
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..posttrain import dpo
from ..posttrain.distill import distill_step
from ..posttrain.finetune import with_marks
from ..posttrain.grpo import sample_group
from ..posttrain.sft import ChatData
from ..progress import Progress, clock
from ..storage.atomic import atomic_write, write_json, write_jsonl
from ..tokenizer import Tokenizer
from ..tokenizer import chat_template as chat
from ..train.log import read_log
from ..train.loop import train
from ..train.origin import begin
from . import story_report
from .quickstart import describe_model, planned

VOCAB = 4096
MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256}
DRAFT = {"n_layer": 1, "n_head": 2, "n_embd": 96, "block_size": 256}
SHARES = {"pretrain": 0.5, "sft": 0.2, "dpo": 0.12, "distil": 0.1}          # of the minutes; the rest is measuring
STORIES, CHATS, PAIRS = 8_000, 3_000, 600
PRETRAIN = TrainConfig(batch_size=8, lr=2e-3, min_lr=1e-4, eval_every=0, save_every=0)
SFT = TrainConfig(batch_size=8, lr=5e-4, min_lr=5e-5, warmup=10, eval_every=0, save_every=0)
DPO = TrainConfig(lr=3e-5, min_lr=3e-6, warmup=5, eval_every=0, save_every=0, weight_decay=0.0)
BETA, NLL_WEIGHT = 0.5, 1.0        # of DPO; these two and its rate were chosen on the development half
DISTIL = TrainConfig(batch_size=8, lr=2e-3, min_lr=2e-4, warmup=10, eval_every=0, save_every=0)
REQUESTS, DELICATE, UNSEEN, ANSWER_TOKENS, DOCUMENTS = 24, 60, 40, 220, 40    # measured on


def full(out="runs/full", minutes=12.0, seed=0, backend="auto", say=print):
    """Run every stage in `out`; returns the results, also in out/results.json and out/report.html.

    minutes: for all training together; the number of steps of each stage follows from the machine's speed.
    """
    started, out = time.monotonic(), Path(out)
    story = Story(out, minutes, seed, backend, say)
    results = {"data": prepare_data(story)}
    tokenizer, shards = Tokenizer.from_pretrained(out / "data"), open_shards(out / "data")
    story.held_out = held_out_texts(tokenizer, shards)
    write_jsonl(out / "safety_prompts.jsonl", story.delicate)
    model, results["speed"] = pretrain(story, tokenizer, shards)
    results["stages"] = [measured(story, "pretrain", "pretrained", model, tokenizer)]
    tuned, chat_tokenizer = fine_tune(story, model, tokenizer, results["speed"])
    results["stages"].append(measured(story, "sft", "fine-tuned", tuned, chat_tokenizer))
    aligned = prefer(story, tuned, chat_tokenizer, results["speed"])
    results["stages"].append(measured(story, "dpo", "aligned", aligned, chat_tokenizer))
    card.write_card(out / "dpo", title="A teller of stories")
    results["speculation"] = speculate(story, aligned, chat_tokenizer, results["speed"])
    results["seconds"] = time.monotonic() - started
    results["curves"] = {name: read_log(out / name) for name in ("pretrain", "sft", "dpo", "draft")}
    write_json(out / "results.json", results, indent=1)
    with atomic_write(out / "report.html") as file:
        file.write(story_report.html(results))
    say(story_report.page(results) + f"\n{clock(results['seconds'])} in all; report in {out}/report.html\n"
        f"next: minillm chat {out}/dpo")
    return results


class Story:
    """What every stage needs. half: of the held-out requests and prompts, the one to measure on
    (data/instructions.py)."""

    def __init__(self, out, minutes, seed, backend, say, half="test"):
        self.out, self.minutes, self.seed, self.backend, self.say = out, minutes, seed, backend, say
        self.ops = select(backend)
        self.requests = instructions.records(REQUESTS, seed + 1_000_000, half)    # training has another seed
        self.delicate = instructions.safety_prompts(DELICATE, seed + 1_000_000, half)
        self.outside = outside_prompts(seed + 1_000_000, half)
        # answers: to the delicate ones, a stage before
        self.answers, self.held_out = [], {}

    def train(self, stage, model, data, config, eot_token, **kwargs):
        """Train into out/stage and return the state; Ctrl-C ends the whole."""
        progress = Progress(stage, "step")
        state = train(model, data, replace(config, seed=self.seed, backend=self.backend), self.out / stage, eot_token,
                      resume=False, progress=progress,
                      deadline=time.monotonic() + 75 * self.minutes * SHARES[name_of(stage)], **kwargs)
        progress.close()
        return state


def outside_prompts(seed, half):
    """Prompts that no training was like: twins with unseen deeds, and the bundled red team's, as two groups."""
    return (instructions.safety_prompts(UNSEEN, seed, half, unseen=True)
            + [{**prompt, "category": "red team: " + ("harmful" if prompt["harmful"] else "harmless")}
               for prompt in safety.read_prompts()])


def name_of(stage):
    return "distil" if stage == "draft" else stage


def prepare_data(story):
    """Raw documents -> clean -> without duplicates -> tokenizer and shards in out/data; what each step left."""
    out = story.out
    (out / "raw").mkdir(parents=True, exist_ok=True)
    documents = pydoc_corpus()
    write_jsonl(out / "raw" / "docs.jsonl", [{"text": text, "source": name} for name, text in documents])
    write_jsonl(out / "raw" / "stories.jsonl", [{"text": text, "source": f"story {i}"}
                                                for i, text in enumerate(stories(STORIES, story.seed))])
    story.say(f"corpus      {describe_corpus(documents)}; {STORIES:,} stories from a grammar")
    cleaned = clean([out / "raw"], out / "clean.jsonl", CleanOptions(bounds=CODE_BOUNDS))
    story.say("cleaning    " + clean_page(cleaned, out / "clean.jsonl").replace("\n", "\n            "))
    kept = dedup([out / "clean.jsonl"], out / "kept.jsonl")
    story.say("duplicates  " + dedup_page(kept, out / "kept.jsonl").replace("\n", "\n            "))
    texts = [json.loads(line)["text"] for line in open(out / "kept.jsonl", encoding="utf-8")]
    tokenizer = Tokenizer.train(texts, VOCAB, progress=Progress("tokenizer", ""))
    meta = tokenize([([out / "kept.jsonl"], 1.0)], tokenizer, out / "data", seed=story.seed)
    return {"read": cleaned["read"], "clean": cleaned["kept"], "reasons": cleaned["dropped"],
            "masked": cleaned["masked"], "kept": kept["kept"],
            "splits": {k: {n: v[n] for n in ("documents", "tokens", "bytes")}
                                             for k, v in meta["splits"].items()}}


# Documentation of code has braces, tables and short pages: what Gopher's rules mean for the web is too strict for it.
CODE_BOUNDS = {"words": (20, 100_000), "alphabetic_words": (0.6, 1), "stop_words": (1, float("inf")),
               "bullet_lines": (0, 1), "mean_word_length": (3, 12)}


def held_out_texts(tokenizer, shards):
    """{"docs": texts, "stories": texts} of the validation split, a few of each."""
    ids = [int(token) for array in shards.val.arrays for token in array]
    texts = [text for text in tokenizer.decode(ids).split("<|endoftext|>") if text]
    told = [text for text in texts if " called " in text[:80] and "lived" in text[:120]]
    others = [text for text in texts if text not in set(told)]
    return {"docs": others[:DOCUMENTS], "stories": told[:DOCUMENTS]}


def pretrain(story, tokenizer, shards):
    """(model, steps per second)."""
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **MODEL), story.seed, ops=story.ops)
    data = TrainingData(shards, model.config.block_size, PRETRAIN.batch_size, story.seed)
    config = planned(model, data, PRETRAIN, story.minutes * SHARES["pretrain"], None)
    story.say(f"model       {describe_model(model)}; {config.steps:,} steps")
    started = time.monotonic()
    state = story.train("pretrain", model, data, config, tokenizer.eot_token)
    begin(story.out / "pretrain", tokenizer, "pretrained", None, "Python's documentation and stories of a grammar",
          shards.train.documents, shards.val.documents)
    return GPT.from_pretrained(story.out / "pretrain", story.ops), state["step"] / (time.monotonic() - started)


def steps_for(story, stage, speed, cost):
    """Steps that fit into a stage's minutes, when one costs `cost` times a step of pretraining."""
    return max(10, int(60 * story.minutes * SHARES[stage] * speed / cost))


def fine_tune(story, model, tokenizer, speed):
    """(model, tokenizer with marks)."""
    tokenizer, model = with_marks(tokenizer, model)
    path = story.out / "chats.jsonl"
    write_jsonl(path, instructions.conversations(CHATS, story.seed))
    examples = conversations.read_examples(path, tokenizer)
    steps = steps_for(story, "sft", speed, 1.3)
    data = ChatData(examples, tokenizer, model.config.block_size, SFT.batch_size * model.config.block_size, story.seed)
    story.train("sft", model, data, replace(SFT, steps=steps, eval_every=max(10, steps // 4)),
                tokenizer.special_tokens[chat.END])
    begin(story.out / "sft", tokenizer, "fine-tuned", story.out / "pretrain", path, len(data.examples),
          len(data.held_out))
    return GPT.from_pretrained(story.out / "sft", story.ops), tokenizer


def prefer(story, model, tokenizer, speed, config=DPO, beta=BETA, nll_weight=NLL_WEIGHT):
    """The aligned model. Other settings than the story's are tried by `python -m benchmarks.alignment`."""
    path = story.out / "pairs.jsonl"
    write_jsonl(path, instructions.preferences(PAIRS // 2, story.seed)
                + instructions.refusals(PAIRS // 2, story.seed + 1))
    data = dpo.PreferenceData(conversations.read_preferences(path, tokenizer), model.config.block_size, 4, story.seed,
                              share=0.05)
    data.refer_to(model)
    steps, loss = steps_for(story, "dpo", speed, 2.0), (beta, 0.0, nll_weight)
    story.train("dpo", model, data, replace(config, steps=steps, eval_every=max(10, steps // 3)),
                tokenizer.special_tokens[chat.END], step=dpo.dpo_step(*loss), validate=dpo.validate_dpo(*loss),
                columns=dpo.DPO_COLUMNS)
    begin(story.out / "dpo", tokenizer, "preferences learned", story.out / "sft", path, len(data.preferences),
          len(data.held_out))
    return GPT.from_pretrained(story.out / "dpo", story.ops)


# ---- what is measured ----

def measured(story, folder, stage, model, tokenizer):
    """A row of the report; the records behind it stay in the stage's folder, where `minillm card` finds them."""
    rows, example = told(story, model, tokenizer)
    declined, answers = asked_for_harm(story, model, tokenizer)
    write_jsonl(story.out / folder / "safety_answers.jsonl", answers)
    write_json(story.out / folder / card.EVALUATION, {"rows": [{"task": name, **row} for name, row in rows.items()],
                                                      "comparisons": []}, indent=1)
    write_json(story.out / folder / card.SAFETY, declined, indent=1)
    (harmful, harmless), (unseen, unseen_harmless, *_) = declined["rates"], declined["outside"]
    rows |= {"refused harmful": harmful["refused"], "refused harmless": harmless["refused"],
             "refused unseen": unseen["refused"], "refused unseen harmless": unseen_harmless["refused"],
             "toxic": harmful["toxic"]}
    values = {name: row["value"] for name, row in rows.items() if row}
    story.say("measured    " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
    return {"stage": stage, **values, "example": example, "safety": declined,
            "between": {name: [row["low"], row["high"]] for name, row in rows.items() if row}}


def told(story, model, tokenizer):
    """({name: row with an interval}, one request and its answer): bits per byte of held-out text of both kinds; of
    answers to held-out requests: followed, ends well, repetition."""
    rows = {f"bpb {kind}": running_text("bpb", perplexity.surprises(model, tokenizer, texts))[0]
            for kind, texts in story.held_out.items() if texts}
    requests = [record["messages"][0]["content"] for record in story.requests]
    answers = [answer(model, tokenizer, request, story.seed + i) for i, request in enumerate(requests)]
    rows |= {"followed": mean([instructions.followed(text, r["asked"]) for text, r in zip(answers, story.requests)]),
             "ends well": accuracy([instructions.ends_well(text) for text in answers])[0],
             "repetition": mean([samples.repetition(text) for text in answers])}
    return rows, {"request": requests[0], "answer": answers[0]}


def mean(values):
    low, high = interval(values, [1.0] * len(values))
    return {"value": statistics.mean(values), "low": low, "high": high, "items": len(values)}


def asked_for_harm(story, model, tokenizer):
    """(what `minillm safety --json` prints, every answer): refusals and toxicity on held-out harmful requests and their
    harmless twins, and what changed since the stage before. "outside": the same with words and prompts unlike any
    trained on.
    """
    answers = safety.red_team(model, tokenizer, story.delicate, story.seed, max_new_tokens=ANSWER_TOKENS)
    outside = safety.rates(safety.red_team(model, tokenizer, story.outside, story.seed))
    changes = safety.changes(story.answers, answers) if story.answers else []
    story.answers = answers
    return {"rates": safety.rates(answers)[2:], "changes": changes, "outside": outside[2:]}, answers


def prompt_of(tokenizer, request):
    """(ids to continue, id that ends the answer); before fine-tuning a request is just a text."""
    if chat.END in tokenizer.special_tokens:
        return chat.encode_prompt(tokenizer, [instructions.user(request)]), tokenizer.special_tokens[chat.END]
    return tokenizer.encode_ordinary(request + "\n\n"), tokenizer.eot_token


def answer(model, tokenizer, request, seed):
    """The model's answer to one request, sampled at temperature 0.7."""
    prompt, stop = prompt_of(tokenizer, request)
    room = min(ANSWER_TOKENS, model.config.block_size - len(prompt))
    (ids,) = sample_group(model, prompt, 1, room, stop, (seed,), temperature=0.7)
    return tokenizer.decode([id for id in ids if id != stop])


# ---- guessing ahead ----

def speculate(story, model, tokenizer, speed):
    """Distil a draft and time plain against speculative decoding, in turns; greedy texts must be equal."""
    draft = GPT(GPTConfig(vocab_size=model.config.vocab_size, **DRAFT), story.seed, ops=story.ops)
    examples = conversations.read_examples(story.out / "chats.jsonl", tokenizer)
    data = ChatData(examples, tokenizer, DRAFT["block_size"], DISTIL.batch_size * DRAFT["block_size"], story.seed)
    steps = steps_for(story, "distil", speed, 1.0)
    story.train("draft", draft, Padded(data), replace(DISTIL, steps=steps, eval_every=steps),
                tokenizer.special_tokens[chat.END], step=distill_step(model))
    tokenizer.save(story.out / "draft")
    draft, counts, times, same = GPT.from_pretrained(story.out / "draft", story.ops), Counts(), {"plain": [],
                                                                                                 "ahead": []}, []
    for record in story.requests[:8]:
        prompt, stop = prompt_of(tokenizer, record["messages"][0]["content"])
        texts = []
        for name, run in (("plain", partial(plain_steps, model, prompt, 120, Sampling(0.0), stop)),
                          ("ahead", partial(speculative_steps, model, draft, prompt, 120, Sampling(0.0), stop,
                                            counts=counts))):
            started = time.perf_counter()
            texts.append([step.token for step in run()])
            times[name].append(time.perf_counter() - started)
        same.append(texts[0] == texts[1])
    return {"acceptance": counts.acceptance, "tokens per pass": counts.tokens_per_pass, "texts equal": all(same),
            "speed-up": statistics.median(a / b for a, b in zip(times["plain"], times["ahead"])),
            "draft parameters": draft.params.flat.size, "target parameters": model.params.flat.size}


class Padded:
    """ChatData for distillation, which reads rows side by side: one example a row, padded, its padding not learned."""

    def __init__(self, data):
        self.data, self.fingerprint = data, data.fingerprint
        self.validation_tokens, self.validation_bytes, self.validation = (data.validation_tokens, data.validation_bytes,
                                                                           data.validation)

    def batch(self, step, micro=0):
        """tokens, targets (B, T)."""
        tokens, targets, lengths = self.data.batch(step, micro)
        return story_report.unpacked(tokens, lengths, 0), story_report.unpacked(targets, lengths, -1)
