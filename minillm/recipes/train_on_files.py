"""Training on one's own files: text -> tokenizer -> shards -> model, resumable; and a tokenizer alone."""
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, TrainConfig
from ..data.shards.format import SIDECAR, SIDES, Shards, count_leaked, fingerprint, open_shards
from ..data.shards.mixture import Mixture, shares_of
from ..data.shards.prepare import SAMPLE_BYTES, TrainingData, prepare, sample, tokenizer_of
from ..data.shards.source import describe_source, difference, list_files
from ..data.shards.token_files import shards_of, token_files
from ..data.shards.write import remove_shards
from ..data.sources.files import read_documents
from ..data.sources.report import Report
from ..kernels.select import select
from ..launch import first_process
from ..models.load import described, model_class
from ..models.pretrained import unfollowed_dropout
from ..posttrain.finetune import adapters
from ..progress import Progress
from ..storage.atomic import atomic_write
from ..storage.lock import exclusive
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import learned_ends
from ..train.checkpoint import checkpoint_exists
from ..train.device import check_device, to_device
from ..train.estimate import describe_run
from ..train.log import SOURCES, read_log
from ..train.loop import train
from ..train.origin import begin
from ..train.parallel import World, all_ranks, check_shared, of_rank_0
from ..train.plot import plot_losses
from ..train.schedule import last_step
from ..train.symptoms import verdict
from .initial_model import digest_of, grown, initial_model, tokenizer_for
from .quickstart import Say, describe_shards

LEAKS_LOOKED_FOR = 10 ** 6                # documents, at most: of more none is cut in two, and to read all takes long
LEAKS_READ = 10 ** 8                      # tokens, at most: they are all in memory
SMALL_MODEL = {"n_layer": 6, "n_head": 6, "n_embd": 192, "block_size": 256}      # for one's own text on a laptop


def train_on_files(paths: Sequence[str | Path], out: str | Path, model_config: ModelConfig, train_config: TrainConfig,
                   tokenizer: str | Path | None = None, vocab_size: int = 8192, resume: str = "auto",
                   say: Say = print, init: str | Path | None = None, mix: Sequence[Any] | None = None,
                   seconds: float = math.inf, lora: dict | None = None) -> dict:
    """`minillm train`: read files, make tokenizer and shards (kept in `out`), train, plot. Returns the results.

    init: the directory of a model to go on from, with its tokenizer unless another is given (initial_model.py). mix:
    a weight for each path, which is a source of its own then (data/shards/mixture.py). seconds: in which a training of
    schedule "wsd" is to end. lora: settings of LoraModel, to train adapters of `init` alone.
    """
    check_data(paths, out)
    check_device(train_config.backend, model_config, bool(lora))
    if mix is not None:
        shares_of(mix, len(paths))
    world = all_ranks()
    if world:
        check_shared(world, train_config.accumulate)
    with exclusive(out) if first_process() else nullcontext():
        return trained_on_files(paths, out, model_config, train_config, tokenizer, vocab_size, resume, say, init, world,
                                mix, seconds, lora)


def trained_on_files(paths: Sequence[str | Path], out: str | Path, model_config: ModelConfig, train_config: TrainConfig,
                     tokenizer: str | Path | None, vocab_size: int, resume: str, say: Say,
                     init: str | Path | None = None, world: World | None = None,
                     mix: Sequence[Any] | None = None, seconds: float = math.inf, lora: dict | None = None) -> dict:
    """The work of `train_on_files`, by the only process in `out`, or by the ranks of a world."""
    known, reports = tokenizer_for(tokenizer, init), {name: Report() for name in (named(paths) if mix else [""])}

    def made() -> tuple[Tokenizer, dict[str, Shards]]:
        again = resume != "never" and checkpoint_exists(Path(out))
        if mix:
            return mixed_shards(paths, out, known, vocab_size, reports, again)
        tok, shards = (ready_shards(paths, out, again) or mapped_shards(paths, out, known, again)
                       or tokenized(paths, out, known, vocab_size, reports[""], again))
        return tok, {"": shards}
    tok, sources = world.first(made, lambda read: found_sources(paths, out, known, mix, read),
                               what_was_read) if world else made()
    for name, shards in sources.items():
        said = str(reports[name]) if reports[name].documents else "data        as tokenized before"
        say(f"{name}: " * bool(mix) + said)
        say(describe_shards(shards) + (describe_leaks(shards) if first_process() else ""))
    model_config = replace(model_config, vocab_size=max(tok.vocab_size, model_config.vocab_size if init else 0))
    if not lora:
        say(describe_run(model_config, train_config, seconds, world.size if world else 1))
    if init and model_config.dropout == described(init)[1].dropout and (other := unfollowed_dropout(init)):
        say(other)
    model, began = first_model(init, model_config, train_config, tok)
    if init and lora:
        model = adapters(model, tok, init, out, lora, train_config, say, grown(init, model))
    model = to_device(model, train_config.backend)
    if (init or mix) and first_process():
        learned, held_out = (sum(getattr(each, side).documents for each in sources.values()) for side in SIDES)
        begin(out, tok, "continued" if init else "pretrained", init, ", ".join(map(str, paths)), learned, held_out,
              resume)
    sizes = (model.config.block_size, train_config.batch_size, train_config.seed, train_config.accumulate)
    data = Mixture(sources, mix, *sizes) if mix else TrainingData(sources[""], *sizes)
    if isinstance(data, Mixture):
        say(data.describe(train_config.steps))
    progress, begun = Progress("training", "step"), time.monotonic()
    state = train(model, data, train_config, out, learned_ends(tok), resume, progress, begun + 1.1 * seconds, say=say,
                  world=world, finish=begun + seconds,
                  settings={"init": began} | ({"mix": str(data)} if mix else {}) | ({"lora": lora} if lora else {}))
    progress.close()
    stopped = (state["step"] < last_step(train_config, state)
               and of_rank_0(world, time.monotonic() - begun)[0] < 1.1 * seconds)
    if first_process():
        plot_losses(out)
    if stopped:
        say(f"stopped after step {state['step']}; run the same command again to go on")
        raise KeyboardInterrupt
    say(f"best validation loss {state['best']['val_loss']:.4f} nats per token, {state['best']['val_bpb']:.4f} bits per "
        f"byte, at step {state['best']['step']:,}\nnext: minillm generate {out} -p \"...\"")
    known = state["settings"] | {"vocab_size": model_config.vocab_size}
    say(judged := verdict(read_log(out), known))
    losses = next((row for row in read_log(out, SOURCES) if mix and row["step"] == state["best"]["step"]), {})
    each = {"sources": {name: losses[name] for name in sources}} if losses else {}
    if each:
        say("of each source: " + ", ".join(f"{name} {loss:.4f}" for name, loss in each["sources"].items()))
    return {"steps": state["step"], "tokens": state["tokens"], **state["best"], "verdict": judged, **each}


def first_model(init: str | Path | None, model_config: ModelConfig, train_config: TrainConfig,
                tok: Tokenizer) -> tuple[Any, str]:
    """(the model before the first step, a hash of the one it goes on from): fresh, or that of a directory."""
    if not init:
        ops = select(train_config.backend)
        return model_class(model_config)(model_config, train_config.seed, ops=ops), ""
    model = initial_model(init, model_config, tok, train_config.backend)
    return model, digest_of(model)


def shards_for(paths: Sequence[str | Path], out: str | Path, tokenizer: str | Path | None, vocab_size: int,
               world: World | None = None) -> Shards:
    """The shards that `train_on_files` would train on; it finds them in `out` again."""
    check_data(paths, out)
    known = tokenizer_for(tokenizer, None)

    def made() -> tuple[Tokenizer, Shards]:
        with exclusive(out):
            return (ready_shards(paths, out, False) or mapped_shards(paths, out, known, False)
                    or tokenized(paths, out, known, vocab_size, Report(), False))
    if world is None:
        return made()[1]
    return world.first(made, lambda read: found_shards(paths, out, known, read),
                       lambda both: both[1].meta.get("read"))[1]


def describe_leaks(shards: Shards) -> str:
    """A line of warning about documents on both sides, if there are any."""
    many = shards.train.documents > LEAKS_LOOKED_FOR or shards.train.tokens > LEAKS_READ
    if many or not (leaked := count_leaked(shards)):
        return ""
    return (f"\nATTENTION: {leaked:,} of {shards.val.documents:,} validation documents are also in the training split: "
            "the validation loss says little about other text")


def ready_shards(paths: Sequence[str | Path], out: str | Path, again: bool,
                 check: bool = True) -> tuple[Tokenizer, Shards] | None:
    """(tokenizer, shards) if `paths` is one folder that `minillm data tokenize` made; the tokenizer is copied to `out`,
    but not over that of a run that is to go on (`again`): it may be another's, which `train` finds out."""
    if len(paths) != 1 or not (Path(paths[0]) / SIDECAR).exists():
        return None
    shards = open_shards(paths[0], Progress("checking", "token"), check)
    tokenizer = tokenizer_of(paths[0], shards)
    if not again:
        begin(out, tokenizer, "pretrained", None, paths[0], shards.train.documents, shards.val.documents)
    return tokenizer, shards


def mapped_shards(paths: Sequence[str | Path], out: str | Path, tokenizer: Tokenizer | None, again: bool,
                  read: list | None = None) -> tuple[Tokenizer, Shards] | None:
    """(tokenizer, shards) if `paths` are token files of nanoGPT or llm.c. Raises ValueError without a tokenizer."""
    if not (files := token_files(list(map(Path, paths)))):
        return None
    if tokenizer is None:
        raise ValueError(f"--data {files[0]}: token files do not say what their ids stand for: name the tokenizer that "
                         "made them with --tokenizer (GPT-2's for most), or a model with it by --init"
                         + "; meta.pkl is a pickle, which is not read here" * (files[0].parent / "meta.pkl").exists())
    shards = shards_of(files, tokenizer, Progress("checking", "token"), read)
    if not again:
        begin(out, tokenizer, "pretrained", None, ", ".join(map(str, paths)), shards.train.documents,
              shards.val.documents)
    return tokenizer, shards


def what_was_read(made: tuple[Tokenizer, dict[str, Shards]]) -> dict[str, list | None]:
    """What reading the token files of each source has found: other processes need not read them, too."""
    return {name: shards.meta.get("read") for name, shards in made[1].items()}


def found_shards(paths: Sequence[str | Path], out: str | Path, known: Tokenizer | None,
                 read: list | None) -> tuple[Tokenizer, Shards]:
    """(tokenizer, shards) as another process has just made, or found and checked them."""
    if found := ready_shards(paths, out, True, check=False) or mapped_shards(paths, out, known, True, read):
        return found
    shards = open_shards(Path(out) / "data", check=False)
    return known or tokenizer_of(out, shards), shards


def named(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Sources by the names that sources.csv has for them; numbered where these are no columns of their own."""
    names = [Path(path).resolve().name for path in paths]
    plain = len({*names, "step", "tokens"}) == len(names) + 2
    return {name if plain else f"{name}-{number}": Path(path)
            for number, (name, path) in enumerate(zip(names, paths), start=1)}


def mixed_shards(paths: Sequence[str | Path], out: str | Path, known: Tokenizer | None, vocab_size: int,
                 reports: dict[str, Report], again: bool) -> tuple[Tokenizer, dict[str, Shards]]:
    """One tokenizer for all sources, and the shards of each; texts' are kept in `out`/data/NAME."""
    tok, found, data = known, {}, Path(out) / "data"
    if not again and data.exists():                         # a run without weights has left its shards there
        (data / SIDECAR).unlink(missing_ok=True)
        remove_shards(data)
    if tok is None:
        ready = [path for path in map(Path, paths) if (path / SIDECAR).exists()]
        tok = Tokenizer.from_pretrained(ready[0]) if ready else shared_tokenizer(paths, out, vocab_size, again)
    for name, path in named(paths).items():
        place = data / name
        own, found[name] = (ready_shards([path], place, True) or mapped_shards([path], place, known, True)
                            or tokenized([path], place, tok, vocab_size, reports[name], again))
        if fingerprint(own) != fingerprint(tok):
            raise ValueError(f"--data {path}: its tokenizer is not that of the other sources: tokenize all with one")
    return tok, found


def shared_tokenizer(paths: Sequence[str | Path], out: str | Path, vocab_size: int, again: bool) -> Tokenizer:
    """Trained on texts of all sources, or as it was for the run that goes on."""
    note = Path(out) / "data" / "vocab_size.txt"
    if again and note.exists():
        if (then := note.read_text(encoding="utf-8")) != str(vocab_size):
            raise ValueError(f"{out} was trained with --vocab-size {then}, not {vocab_size}; use another --out, or "
                             "--resume never")
        return Tokenizer.from_pretrained(out)
    progress = Progress("tokenizer", "")
    tok = Tokenizer.train(sample(read_documents(paths, Report()), SAMPLE_BYTES), vocab_size, stop_early=True,
                          progress=progress)
    note.parent.mkdir(exist_ok=True)
    with atomic_write(note) as file:
        file.write(str(vocab_size))
    return tok


def found_sources(paths: Sequence[str | Path], out: str | Path, known: Tokenizer | None, mix: Sequence[Any] | None,
                  read: dict[str, list | None]) -> tuple[Tokenizer, dict[str, Shards]]:
    """(tokenizer, shards by source) as another process has just made or found them; read: by `what_was_read`."""
    if not mix:
        tok, shards = found_shards(paths, out, known, read[""])
        return tok, {"": shards}
    found = {name: found_shards([path], Path(out) / "data" / name, known, read[name])
             for name, path in named(paths).items()}
    return next(iter(found.values()))[0], {name: shards for name, (_, shards) in found.items()}


def tokenized(paths: Sequence[str | Path], out: str | Path, known: Tokenizer | None, vocab_size: int,
              report: Report, again: bool) -> tuple[Tokenizer, Shards]:
    """(tokenizer, shards) of files, kept in `out`. Raises ValueError if a run there is to go on with other files."""
    files, note = list_files(list(map(Path, paths))), Path(out) / "data" / "source.txt"
    source = note.read_text(encoding="utf-8") if again and note.exists() else ""
    if not source:
        source = describe_source(files, known, vocab_size)
    elif changed := difference(source, files, known, vocab_size):
        raise ValueError(f"{out} was trained {changed}; use another --out, or --resume never")

    def documents() -> Iterator[tuple[str, str]]:
        report.clear()                          # a tokenizer to train has a pass of its own: the last one counts
        return read_documents(paths, report)
    tokenizer, shards = prepare(documents, out, known, vocab_size, source, progress=lambda label: Progress(label, ""))
    return known or tokenizer, shards


def check_data(paths: Sequence[str | Path], out: str | Path) -> None:
    """Raise FileNotFoundError for a path that is not there, ValueError for the run's own directory."""
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"--data {path}: there is no such file or folder")
        if path.resolve() == Path(out).resolve() and not (path / SIDECAR).exists():
            raise ValueError(f"--out {out}: is a folder of --data, whose files are read as text: use one of its own, "
                             f"such as {Path(out) / 'run'}")


def train_tokenizer(paths: Sequence[str | Path], vocab_size: int, out: str | Path, **options: Any) -> str:
    """`minillm tokenizer train`, options as of Tokenizer.train; returns a line that says what came out."""
    report, progress = Report(), Progress("tokenizer", "merge")
    tokenizer = Tokenizer.train((text for _, text in read_documents(paths, report)), vocab_size,
                                progress=progress, **options)
    progress.close()
    Path(out).mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    return f"{report}\n{tokenizer.vocab_size} tokens, saved in {out}/tokenizer.json"
