"""What the commands do, as functions: train on files, generate, check gradients, train a tokenizer."""
import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..generation import speculative
from ..config import GPTConfig
from ..data.sources.documents import Report, read_documents
from ..data.shards.prepare import TrainingData, prepare
from ..data.shards.format import SIDECAR, open_shards
from ..generation.decode import TextStream, steps
from ..gradcheck import as_dict, check_model, gradcheck
from ..models.load import load
from ..models.gpt2 import GPT
from ..train.plot import plot_losses
from ..progress import Progress
from ..kernels.select import OPS, Dims, check_ops, choices, functions, select
from ..tokenizer import Tokenizer
from ..train.checkpoint import checkpoint_exists
from ..train.loop import train

SMALL_MODEL = {"n_layer": 6, "n_head": 6, "n_embd": 192, "block_size": 256}      # for one's own text on a laptop
CHECKED_MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=12, block_size=8, vocab_size=23, dropout=0.1)
TOLERANCE = {"central": {"atol": 1e-7, "rtol": 1e-6}, "complex": {"atol": 1e-12, "rtol": 1e-10}}


def train_on_files(paths, out, model_config, train_config, tokenizer=None, vocab_size=8192, resume="auto", say=print):
    """`minillm train`: read files, make tokenizer and shards (kept in `out`), train, plot. Returns the results."""
    report = Report()
    again = resume == "auto" and checkpoint_exists(Path(out))
    tok, shards = ready_shards(paths, out, again) or tokenized(paths, out, tokenizer, vocab_size, report, again)
    say(str(report) if report.documents else "data        as tokenized before")
    for name, split in (("training", shards.train), ("validation", shards.val)):
        say(f"{name:<11} {split.documents:,} documents, {split.bytes / 1e6:.2f} MB, {split.tokens:,} tokens")
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


def ready_shards(paths, out, again):
    """(tokenizer, shards) if `paths` is one folder that `minillm data tokenize` made; the tokenizer is copied to `out`, but
    not over that of a run that is to go on (`again`): it may be another's, which `train` finds out."""
    if len(paths) != 1 or not (Path(paths[0]) / SIDECAR).exists():
        return None
    tokenizer = Tokenizer.from_pretrained(paths[0])
    Path(out).mkdir(parents=True, exist_ok=True)
    if not again:
        tokenizer.save(out)
    return tokenizer, open_shards(paths[0])


def tokenized(paths, out, tokenizer, vocab_size, report, again):
    """(tokenizer, shards) of files, kept in `out`. Raises ValueError if a run there is to go on with other files."""
    known = Tokenizer.from_pretrained(tokenizer) if tokenizer else None
    source, note = describe_source(paths, tokenizer or f"vocab_size {vocab_size}"), Path(out) / "data" / "source.txt"
    if again and note.exists() and note.read_text(encoding="utf-8") not in ("", source):
        raise ValueError(f"{out} was trained on other files, or they have changed since: use another --out, or --resume never")
    return prepare(lambda: read_documents(paths, report), out, known, vocab_size, source,
                   progress=lambda label: Progress(label, ""))


def describe_source(paths, tokenizer):
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


@dataclass
class Writer:
    """What it takes to continue a text: a model, its tokenizer, perhaps a draft that makes k guesses a pass."""

    model: GPT
    tokenizer: Tokenizer
    draft: object = None            # a GPT, a speculative.Lookup, or None
    k: int = 4
    counts: speculative.Counts = field(default_factory=speculative.Counts)


def load_writer(directory, draft=None, lookup=False, k=4, backend="auto"):
    """A Writer from a model directory, and that of a draft. Raises ValueError for a draft with another tokenizer."""
    model, tokenizer = load(directory, backend)
    if lookup:
        return Writer(model, tokenizer, speculative.Lookup(model.config.vocab_size), k)
    if draft is None:
        return Writer(model, tokenizer)
    small, other = load(draft, backend)
    if token_list(other) != token_list(tokenizer):
        raise ValueError(f"--draft {draft}: its tokenizer is not that of {directory}")
    return Writer(model, tokenizer, small, k)


def token_list(tokenizer):
    return [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]


def write_text(writer, prompt, max_new_tokens, sampling, stop=(), top=0, say=lambda text: None, new_text=TextStream):
    """Continue a prompt; say(piece) gets the text as it comes, never half a character, nothing of a stop string.

    The text ends with the tokenizer's end of text (which is not part of it), with one of the strings in `stop`, or
    after max_new_tokens. new_text: what makes text of tokens, such as safety.FilteredText. Returns {"text", "finish":
    "stop" or "length", "seed", "tokens": [{"id", "text", "logprob", "top"}]}, the tokens whose text begins in the text.
    """
    tokenizer, text = writer.tokenizer, new_text(writer.tokenizer, stop)
    ids = tokenizer.encode(prompt) or [first_token(tokenizer)]
    pieces, tokens, finish = [], [], "length"

    def write(piece):
        pieces.append(piece)
        say(piece)
    for step in token_steps(writer, ids, max_new_tokens, sampling, top):
        if step.token != tokenizer.eot_token:
            tokens.append(described(step, tokenizer))
            write(text.push(step.token))
        if step.token == tokenizer.eot_token or text.stopped is not None:
            finish = "stop"
            break
    write(text.finish())
    written = "".join(pieces)
    if text.stopped is not None:
        while tokens and len(tokenizer.decode([token["id"] for token in tokens[:-1]])) >= len(written):
            tokens.pop()                                    # of the stop string and what came with it
    return {"text": written, "finish": finish, "seed": sampling.seed, "tokens": tokens}


def token_steps(writer, ids, max_new_tokens, sampling, top):
    """The Steps of a text, guessed ahead if there is a draft; the same distribution either way."""
    settings = ids, max_new_tokens, sampling, writer.tokenizer.eot_token, top
    if writer.draft is None:
        return steps(writer.model, *settings)
    return speculative.steps(writer.model, writer.draft, *settings, writer.k, writer.counts)


def described(step, tokenizer):
    """A Step as a dict for JSON."""
    def one(token, logprob):
        return {"id": token, "text": tokenizer.decode([token]), "logprob": logprob}
    return one(step.token, step.logprob) | {"top": [one(*alternative) for alternative in step.top]}


def first_token(tokenizer):
    """What a fresh document follows: the end of another."""
    if tokenizer.eot_token is None:
        raise ValueError("--prompt must not be empty: this tokenizer has no <|endoftext|> to begin with")
    return tokenizer.eot_token


def gradcheck_table(ops=None, backend=None, model=False, method=None, dtype="float64"):
    """Check the ops (default: all) on the backends (default: all that are built), or a whole model; returns dicts.

    Raises ValueError for an op that has no gradient, and for a backend that does not take the dtype the method needs.
    """
    check_ops(ops or [])
    for op in ops or []:
        if OPS[op].kind != "pair":
            raise ValueError(f"--op {op}: it has no backward, so there is no gradient to check")
    if model:
        return check_whole_model(backend or ("numpy" if method == "complex" else "auto"), method or "central")
    rows = []
    for spec in OPS.values():
        if spec.kind != "pair" or (ops and spec.name not in ops):
            continue
        for choice in [backend] if backend else choices(spec.name, "float64"):
            methods = [method] if method else ["central", "complex"] if choice == "numpy" else ["central"]
            for chosen in methods:
                rows += check_op(spec, choice, chosen)
    return rows


def check_op(spec, choice, method):
    """One op on one backend by one method, on its sample inputs."""
    namespace = select({spec.name: choice})
    source = namespace.backends[spec.name]
    check_dtype_taken(spec.name, source, method)
    forward, backward = (getattr(namespace, name) for name in functions(spec))
    args = spec.sample(np.random.default_rng(0), "float64", Dims(B=2, T=7, C=12, NH=3, V=19))
    rows = gradcheck(forward, backward, args, method=method, raise_exception=False, wrt=spec.differentiable, **TOLERANCE[method])
    return [{"op": spec.name, "backend": source, "method": method, **as_dict(row)} for row in rows]


def check_dtype_taken(op, source, method):
    """Raise ValueError where an implementation lacks the dtype in which the method measures."""
    if method == "complex" and source != "numpy":
        raise ValueError(f"--method complex needs complex128, which only numpy takes: got --backend {source}")
    if source not in choices(op, "float64"):
        raise ValueError(f"--backend {source}: {op} takes no float64 there, which finite differences need "
                         "(tests/test_ops.py compares it with the reference instead)")


def check_whole_model(backend, method):
    """Every parameter tensor of a small GPT, with dropout on, by elements and along random directions."""
    ops = select(backend)
    for op in ("embedding", "linear", "layernorm", "attention", "mlp", "linear_cross_entropy"):
        check_dtype_taken(op, ops.backends[op], method)
    rng = np.random.default_rng(0)
    model = GPT(CHECKED_MODEL, dtype=np.float64, ops=ops)
    model.params.flat += 0.1 * rng.standard_normal(model.params.flat.size)
    tokens, targets = rng.integers(0, CHECKED_MODEL.vocab_size, (2, 2, 8))       # (B, T) each
    targets[0, 3] = -1
    key, count = (0, 1, 0), (targets != -1).sum()
    _, grads = model.loss_and_grads(tokens, targets, key=key)

    def loss(params):
        return GPT(CHECKED_MODEL, ops=model.ops, params=params).losses(tokens, targets, key=key)[0].sum() / count

    rows = check_model(loss, grads, model.params, method=method, **TOLERANCE[method])
    return [{"op": "model", "backend": backend, "method": method, **as_dict(row)} for row in rows]


def gradcheck_page(rows):
    """The table a reader sees: each tensor's worst element."""
    lines = [f"{'op':<21}{'backend':<15}{'method':<9}{'worst element':<38}{'analytic':>14}{'numeric':>15}{'error':>9}"]
    for row in rows:
        place = row["name"] + (str(list(row["index"])) if row["index"] else "")
        lines.append(f"{row['op']:<21}{row['backend']:<15}{row['method']:<9}{place:<38}{row['analytic']:>+14.6e}"
                     f"{row['numeric']:>+15.6e}{row['error']:>9.1e}  {'ok' if row['passed'] else 'FAIL'}")
    failed = [row for row in rows if not row["passed"]]
    checked = sum(row["checked"] for row in rows)
    lines.append(f"{len(rows) - len(failed)} of {len(rows)} gradients right ({checked:,} numbers compared)")
    lines += [f"WRONG: {row['op']} on {row['backend']}: gradient of {row['name']} at {row['index']}" for row in failed]
    return "\n".join(lines)


def train_tokenizer(paths, vocab_size, out, **options):
    """`minillm tokenizer train`, options as of Tokenizer.train; returns a line that says what came out."""
    report, progress = Report(), Progress("tokenizer", "merge")
    tokenizer = Tokenizer.train((text for _, text in read_documents(paths, report)), vocab_size,
                                progress=progress, **options)
    progress.close()
    Path(out).mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    return f"{report}\n{tokenizer.vocab_size} tokens, saved in {out}/tokenizer.json"
