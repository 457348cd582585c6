"""`minillm sft`, `dpo` and `grpo` from a base model and its data to a trained run directory and what it brought."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..data.sources import conversations
from ..launch import first_process
from ..models.adapted import LoraModel, load_adapter
from ..models.grow import with_vocabulary
from ..models.load import load
from ..models.pretrained import unfollowed_dropout
from ..progress import Progress
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import MARKS, learned_ends, own_template, save_tokenizer
from ..train.log import read_log
from ..train.loop import train
from ..train.origin import begin
from ..train.parallel import all_ranks
from ..train.plot import plot_losses
from . import dpo, grpo
from .sft import ChatData, count_leaked
from .tasks import TASKS

Say = Callable[[str], None]


def sft(base: str | Path, data: str | Path, out: str | Path, config: TrainConfig, lora: dict | None = None,
        resume: str = "auto", say: Say = print, too_long: str = "cut") -> dict:
    """Supervised fine-tuning of `base` on conversations: a file of the forms in data/sources/chat_formats.py, or the
    name of a task (its problems with their answers, from which `reward` goes on). Returns the results, as the others
    here do.

    lora: settings of LoraModel (rank, alpha, targets, dropout) to train adapters only, or {"adapter": a directory} to
    go on with those; None trains all weights.
    too_long: of conversations beyond the context length, "cut" or "drop" (ChatData).
    """
    model, tokenizer = load(base, config.backend)
    tokenizer, model = with_marks(tokenizer, model)
    told = [other] if (other := unfollowed_dropout(base)) else []
    examples = ([conversations.example_of(record, tokenizer) for record in TASKS[data].records()] if data in TASKS else
                conversations.read_examples(data, tokenizer, told.append))
    records = ChatData(examples, tokenizer, model.config.block_size, config.batch_size * model.config.block_size,
                       config.seed, config.accumulate, too_long=too_long)
    told.append(f"data        {len(records.examples):,} conversations to learn, {len(records.held_out):,} held out"
                + dropped(records.dropped, "did not fit the context" if too_long == "drop" else
                          "had nothing to learn within the context") + leaked(records.examples, records.held_out))
    say("\n".join(told))
    if records.cut:
        say(f"            {records.cut:,} cut to the context length of {model.config.block_size}: their ends are not "
            "learned (--too-long drop leaves them out)\n"
            f"            of their answers {records.answers_cut:,} are cut short, which learn no end token, and "
            f"{records.answers_lost:,} lie beyond the context; all others learn theirs")
    begin(out, tokenizer, "fine-tuned", base, data, len(records.examples), len(records.held_out), resume)
    learner = adapters(model, tokenizer, base, out, lora, config, say)
    best = learn(learner, records, config, out, learned_ends(tokenizer), resume, Progress("fine-tuning", "step"),
                 say=say, settings={"lora": lora, "too_long": too_long})
    say(f"best loss on held-out answers {best['val_loss']:.4f} nats per token, at step {best['step']:,}\n"
        f"next: minillm chat {out}")
    return best | {name: getattr(records, name) for name in ("dropped", "cut", "answers_cut", "answers_lost")}


def prefer(base: str | Path, data: str | Path, out: str | Path, config: TrainConfig, pairs: int = 8, beta: float = 0.1,
           label_smoothing: float = 0.0, reference_free: bool = False, nll_weight: float = 0.0,
           lora: dict | None = None, resume: str = "auto", say: Say = print) -> dict:
    """Direct preference optimization (DPO) on pairs (forms: data/sources/chat_formats.py). beta: of the KL penalty."""
    model, tokenizer = load(base, config.backend)
    tokenizer, model = with_marks(tokenizer, model)
    told = [other] if (other := unfollowed_dropout(base)) else []
    preferences = conversations.read_preferences(data, tokenizer, told.append)
    records = dpo.PreferenceData(preferences, model.config.block_size, pairs, config.seed)
    told.append(f"data        {len(records.preferences):,} pairs to learn, {len(records.held_out):,} held out"
                + dropped(records.dropped, "did not fit the context") + leaked(records.preferences, records.held_out))
    say("\n".join(told))
    begin(out, tokenizer, "preferences learned", base, data, len(records.preferences), len(records.held_out), resume)
    learner, loss = adapters(model, tokenizer, base, out, lora, config, say), (beta, label_smoothing, nll_weight)
    records.refer_to(None if reference_free else learner)          # with the adapter that it begins from, if any
    settings = {"pairs": pairs, "beta": beta, "label_smoothing": label_smoothing, "nll_weight": nll_weight,
                "reference_free": reference_free, "lora": lora}
    best = learn(learner, records, config, out, learned_ends(tokenizer), resume, Progress("preferences", "step"),
                 step=dpo.dpo_step(*loss), validate=dpo.validate_dpo(*loss), columns=dpo.DPO_COLUMNS, say=say,
                 settings=settings)
    say(f"the chosen answer is preferred in {best['val_accuracy']:.1%} of held-out pairs "
        f"(loss {best['val_loss']:.4f}), at step {best['step']:,}")
    return best


def reward(base: str | Path, task: str, out: str | Path, config: TrainConfig, prompts: int = 16, group: int = 8,
           max_new_tokens: int = 8, clip: float = 0.2, beta: float = 0.04, resume: str = "auto",
           say: Say = print, lora: dict | None = None, adapter: str | Path | None = None) -> dict:
    """Group-relative policy optimization (GRPO) on a task with verifiable answers. beta: of the KL penalty. adapter: a
    directory with one that is merged into the base first."""
    begun = (lora or {}).get("adapter")
    if adapter and begun:
        raise ValueError("--adapter and --init-adapter: an adapter is merged, or gone on with; give one of them")
    model, tokenizer = load(base, config.backend, adapter=adapter)
    reference, _ = load(base, config.backend, adapter=adapter or begun)
    if task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}: got {task!r}")
    if config.accumulate > prompts:
        raise ValueError(f"train.accumulate must be at most --prompts, {prompts}, which are cut into so many "
                         f"micro-batches: got {config.accumulate}")
    problems = grpo.RewardData(TASKS[task], tokenizer, prompts, group, max_new_tokens, config.seed)
    before = grpo.mean_reward(reference, problems)
    say(f"before      mean reward {before:.3f} on {len(problems.task.held_out)} held-out problems (greedy)")
    begin(out, tokenizer, "rewarded", base, task, len(problems.task.training), len(problems.task.held_out), resume)
    settings: dict = {"prompts": prompts, "group": group, "max_new_tokens": max_new_tokens, "clip_ratio": clip,
                      "beta": beta} | ({"lora": lora} if lora else {}) | ({"adapter": str(adapter)} if adapter else {})
    learner = adapters(model, tokenizer, base, out, lora, config, say, merged=adapter is not None)
    best = learn(learner, problems, config, out, learned_ends(tokenizer), resume, Progress("rewards", "step"),
                 step=grpo.grpo_step(reference, clip, beta), validate=grpo.validate_reward,
                 columns=grpo.GRPO_COLUMNS, say=say, settings=settings)
    rewards = [row["reward"] for row in read_log(out)]
    part = max(1, len(rewards) // 5)
    first, last = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
    say(f"after       mean reward {best['val_reward']:.3f}, at step {best['step']:,}\n"
        f"answers sampled in training: mean reward {first:.3f} in the first fifth of the log, {last:.3f} in the last")
    return {"before": before, "tried_first": first, "tried_last": last, **best}


def learn(model: Any, data: Any, config: TrainConfig, out: str | Path, *how: Any, say: Say,
          **more: Any) -> dict:
    """`train`, and a picture of it; returns its steps and best validation. A run that was stopped says how to go on."""
    state = train(model, data, config, out, *how, **more | {"say": say, "world": all_ranks()})
    if first_process():
        plot_losses(out)
    if state["step"] < config.steps:
        say(f"stopped after step {state['step']}; run the same command again to go on")
        raise KeyboardInterrupt
    return {"steps": state["step"], **state["best"]}


def with_marks(tokenizer: Tokenizer, model: Any) -> tuple[Tokenizer, Any]:
    """(tokenizer, model) that know the chat template's marks, with rows for them by the rule of models/grow.py; both
    unchanged if their directory brought a template of its own."""
    if own_template(tokenizer):
        return tokenizer, model
    tokenizer = tokenizer.with_special_tokens(MARKS)
    return tokenizer, with_vocabulary(model, tokenizer.vocab_size)


def adapters(model: Any, tokenizer: Tokenizer, base: str | Path, out: str | Path, settings: dict | None,
             config: TrainConfig, say: Say, grown: bool | None = None, merged: bool = False) -> Any:
    """The model itself, or its LoRA adapters if there are settings for them. A base that has grown (by default: whose
    wte had no rows for the marks) is written to out/base, and so is one with another adapter merged: it is what the
    adapters belong to."""
    if not settings:
        return model
    if merged or (Tokenizer.from_pretrained(base).vocab_size < tokenizer.vocab_size if grown is None else grown):
        base = Path(out) / "base"
        if first_process():
            model.save_pretrained(base, learned_ends(tokenizer))
            save_tokenizer(tokenizer, base)
    if start := settings.get("adapter"):
        adapter = load_adapter(model, start)
        adapter.settings["base_model_name_or_path"] = str(base)
        if adapter.whole:
            raise ValueError(f"{start} brings {', '.join(adapter.whole)} of its own, which cannot be trained on")
    else:
        adapter = LoraModel(model, **settings, seed=config.seed, name=str(base))
    say(f"adapters    {adapter.params.flat.size:,} trainable parameters, {model.params.flat.size:,} frozen, in {base}")
    return adapter


def dropped(count: int, why: str) -> str:
    return f" ({count:,} dropped: {why})" if count else ""


def leaked(learned: list, held_out: list) -> str:
    """A line of warning about records that are learned and held out."""
    count = count_leaked(learned, held_out)
    return (f"\nATTENTION: {count:,} of {len(held_out):,} records held out are also among those to learn: their loss "
            "says little about others") if count else ""
