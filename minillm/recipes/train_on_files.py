"""Training on one's own files: text -> tokenizer -> shards -> GPT, resumable; and a tokenizer alone."""
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import GPTConfig, TrainConfig
from ..data.shards.format import SIDECAR, Shards, open_shards
from ..data.shards.prepare import TrainingData, prepare
from ..data.sources.files import read_documents
from ..data.sources.report import Report
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..progress import Progress
from ..tokenizer import Tokenizer
from ..train.checkpoint import checkpoint_exists
from ..train.loop import train
from ..train.origin import begin
from ..train.plot import plot_losses
from .quickstart import Say, describe_shards

SMALL_MODEL = {"n_layer": 6, "n_head": 6, "n_embd": 192, "block_size": 256}      # for one's own text on a laptop


def train_on_files(paths: Sequence[str | Path], out: str | Path, model_config: GPTConfig, train_config: TrainConfig,
                   tokenizer: str | Path | None = None, vocab_size: int = 8192, resume: str = "auto",
                   say: Say = print) -> dict:
    """`minillm train`: read files, make tokenizer and shards (kept in `out`), train, plot. Returns the results."""
    report = Report()
    again = resume == "auto" and checkpoint_exists(Path(out))
    tok, shards = ready_shards(paths, out, again) or tokenized(paths, out, tokenizer, vocab_size, report, again)
    say(str(report) if report.documents else "data        as tokenized before")
    say(describe_shards(shards))
    ops = select(train_config.backend)
    model = GPT(replace(model_config, vocab_size=tok.vocab_size), train_config.seed, ops=ops)
    say(f"model       {model.params.flat.size / 1e6:.1f}M parameters; {train_config.steps:,} steps of "
        f"{train_config.batch_size * train_config.accumulate * model_config.block_size:,} tokens")
    data = TrainingData(shards, model.config.block_size, train_config.batch_size, train_config.seed,
                        train_config.accumulate)
    progress = Progress("training", "step")
    state = train(model, data, train_config, out, tok.eot_token, resume == "auto", progress)
    progress.close()
    plot_losses(out)
    if state["step"] < train_config.steps:
        say(f"stopped after step {state['step']}; run the same command again to go on")
        raise KeyboardInterrupt
    say(f"best validation loss {state['best']['val_loss']:.4f} nats per token, {state['best']['val_bpb']:.4f} bits per "
        f"byte, at step {state['best']['step']:,}\nnext: minillm generate {out} -p \"...\"")
    return {"steps": state["step"], "tokens": state["tokens"], **state["best"]}


def ready_shards(paths: Sequence[str | Path], out: str | Path, again: bool) -> tuple[Tokenizer, Shards] | None:
    """(tokenizer, shards) if `paths` is one folder that `minillm data tokenize` made; the tokenizer is copied to `out`,
    but not over that of a run that is to go on (`again`): it may be another's, which `train` finds out."""
    if len(paths) != 1 or not (Path(paths[0]) / SIDECAR).exists():
        return None
    tokenizer, shards = Tokenizer.from_pretrained(paths[0]), open_shards(paths[0])
    if not again:
        begin(out, tokenizer, "pretrained", None, paths[0], shards.train.documents, shards.val.documents)
    return tokenizer, shards


def tokenized(paths: Sequence[str | Path], out: str | Path, tokenizer: str | Path | None, vocab_size: int,
              report: Report, again: bool) -> tuple[Tokenizer, Shards]:
    """(tokenizer, shards) of files, kept in `out`. Raises ValueError if a run there is to go on with other files."""
    known = Tokenizer.from_pretrained(tokenizer) if tokenizer else None
    source, note = describe_source(paths, tokenizer or f"vocab_size {vocab_size}"), Path(out) / "data" / "source.txt"
    if again and note.exists() and note.read_text(encoding="utf-8") not in ("", source):
        raise ValueError(f"{out} was trained on other files, or they have changed since: use another --out, "
                         "or --resume never")
    return prepare(lambda: read_documents(paths, report), out, known, vocab_size, source,
                   progress=lambda label: Progress(label, ""))


def describe_source(paths: Sequence[str | Path], tokenizer: str | Path) -> str:
    """A text that changes when the files or the tokenizer do: names, sizes and times, hashed."""
    digest = hashlib.blake2b(digest_size=16)
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"--data {path}: there is no such file or folder")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            status = os.stat(file)
            digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"{digest.hexdigest()} {tokenizer}"


def train_tokenizer(paths: Sequence[str | Path], vocab_size: int, out: str | Path, **options: Any) -> str:
    """`minillm tokenizer train`, options as of Tokenizer.train; returns a line that says what came out."""
    report, progress = Report(), Progress("tokenizer", "merge")
    tokenizer = Tokenizer.train((text for _, text in read_documents(paths, report)), vocab_size,
                                progress=progress, **options)
    progress.close()
    Path(out).mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    return f"{report}\n{tokenizer.vocab_size} tokens, saved in {out}/tokenizer.json"
