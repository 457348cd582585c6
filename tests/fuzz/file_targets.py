"""The files of this package: safetensors, models, checkpoints, adapters, shards, tokenizers, conversations."""

import base64
import json
import shutil
import struct

import numpy as np

from minillm import GPT, GPTConfig, Tokenizer, load_model
from minillm.data.shards import format as shard_format
from minillm.data.shards.format import open_shards
from minillm.data.shards.loader import Loader
from minillm.data.shards.prepare import prepare
from minillm.data.sources.conversations import read_examples, read_preferences
from minillm.models.adapted import LoraModel, load_adapter, save_adapter
from minillm.models.pretrained import MODEL, write_model
from minillm.models.quantized import quantize, save_quantized
from minillm.storage.safetensors import read_safetensors, write_safetensors
from minillm.train.checkpoint import OPTIMIZER, STATE, file_checksum, json_checksum, load_training, save_training
from minillm.train.optim import AdamW

from . import mutations as m
from .targets import target

TEXTS = ["the quick brown fox jumps over the lazy dog. Naïve ☃ 漢字! " * 20]
CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=280)
KINDS = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "f32", "", None, 3, "F" * 1000)


@target(ValueError, OSError)
def safetensors(folder):
    path = folder / "a.safetensors"
    write_safetensors(
        path, {"a": np.ones((2, 3), "f4"), "b.c": np.arange(4), "empty": np.zeros((0, 5), "f2")}, {"x": "y"}
    )
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]

    def change_entry(rng, changed):
        entry = changed[rng.choice(sorted(set(changed) - {"__metadata__"}) or ["new"])] if len(changed) > 1 else {}
        entry["dtype"] = rng.choice(KINDS)
        entry["shape"] = [rng.choice((0, 1, 2, 3, 2**31, 2**62, -1)) for _ in range(rng.choice((0, 1, 2, 3, 64, 70)))]
        entry["data_offsets"] = [rng.choice((0, 24, 32, 56, len(rest), 2**40)) for _ in range(2)]

    def draw(rng):
        kind = rng.randrange(4)
        changed = m.json_(rng, header) if kind else json.loads(json.dumps(header))
        if kind == 1 and isinstance(changed, dict) and all(isinstance(entry, dict) for entry in changed.values()):
            change_entry(rng, changed)
        text = m.json_text(rng, changed, separators=(",", ":"))
        text += b" " * (-len(text) % rng.choice((1, 8, 8, 8)))
        size = len(text) if rng.random() < 0.9 else rng.choice(m.INTEGERS) % 2**64
        whole = struct.pack("<Q", size) + text + rest
        path.write_bytes(m.bytes_(rng, whole) if rng.random() < 0.4 else whole)
        return path.stat().st_size, lambda: [np.asarray(array).sum() for array in read_safetensors(path)[0].values()]

    return draw


def use_model(folder):
    model = load_model(folder)
    model.forward(np.zeros((1, min(2, model.config.block_size)), int))


@target(ValueError, OSError)
def model_directory(folder):
    valid, again = folder / "valid", folder / "copy"
    model = GPT(CONFIG, 0)
    write_model(valid, model.config, model.params, 7)
    int8 = folder / "int8"
    save_quantized(int8, quantize(model, "int8"))
    return lambda rng: (m.changed_copy(rng, rng.choice((valid, int8)), again), lambda: use_model(again))


@target(ValueError, OSError)
def checkpoint(folder):
    valid, again = folder / "valid", folder / "copy"
    model = GPT(CONFIG, 0)
    optimizer = AdamW(model.params)
    write_model(valid, model.config, model.params)
    save_training(
        valid, optimizer.m, optimizer.v, {"step": 3, "best": None, "data": "x", "seed": 0, "settings": {"lr": 1e-3}}
    )

    def seal(copy):
        """As if it had been saved so: what is behind the checksums is looked at, too."""
        try:
            state = json.loads((copy / STATE).read_text())
            state.pop("checksums", None)
            sums = {name: file_checksum(copy / name) for name in (MODEL, OPTIMIZER)} | {"state": json_checksum(state)}
            (copy / STATE).write_text(json.dumps(state | {"checksums": sums}))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            pass

    def use(copy):
        use_model(copy)
        load_training(copy)

    return lambda rng: (m.changed_copy(rng, valid, again, seal), lambda: use(again))


@target(ValueError, OSError)
def adapter(folder):
    valid, again = folder / "valid", folder / "copy"
    base = GPT(CONFIG, 0)
    save_adapter(LoraModel(base, rank=2), valid)

    def use():
        load_adapter(base, again).merged().forward(np.zeros((1, 2), int))

    return lambda rng: (m.changed_copy(rng, valid, again), use)


@target(ValueError, OSError)
def shards(folder):
    valid, again = folder / "valid", folder / "copy"
    prepare(lambda: [(f"{i}", f"text number {i} of many. " * 5) for i in range(40)], valid, vocab_size=280, source="x")

    def seal(copy):
        path = copy / shard_format.SIDECAR
        try:
            meta = json.loads(path.read_text())
            for side in meta["splits"].values():
                for entry in side["files"]:
                    entry["blake2b"] = shard_format.blake2b((copy / entry["name"]).read_bytes()).hexdigest()
            meta["blake2b"] = shard_format.meta_checksum(meta)
            path.write_text(json.dumps(meta))
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            pass

    def use():
        found = open_shards(again)
        for split in (found.train, found.val):
            Loader(split, 4, 2, 0).batch(1)
        shard_format.count_leaked(found)

    return lambda rng: (m.changed_copy(rng, valid, again, seal), use)


@target(ValueError, OSError)
def tokenizer_files(folder):
    """Whatever loads encodes and decodes as its Python twin does."""
    forms = [folder / name for name in ("json", "vocab", "ranks")]
    for pattern, form in zip(("gpt2", "cl100k", "o200k"), forms):
        tokenizer = Tokenizer.train(
            TEXTS, 290, pattern=pattern, stop_early=True, special_tokens=["<|endoftext|>", "<|end|>"]
        )
        tokenizer.save(form)
        if form.name == "vocab":
            (form / "tokenizer.json").unlink()
            tokenizer.save_vocab_merges(form)
    tiktoken = folder / "ranks.tiktoken"
    Tokenizer.train(TEXTS, 290, stop_early=True, special_tokens=[]).save_tiktoken(tiktoken)
    ranks, again = tiktoken.read_bytes(), folder / "copy"

    def use(load, text):
        fast, slow = load("auto"), load("python")
        assert fast.vocab_size == slow.vocab_size
        for allowed in (frozenset(), "all"):
            ids = fast.encode(text, allowed, ())
            assert ids == slow.encode(text, allowed, ()), (ids, text)
            assert fast.decode_bytes(ids) == slow.decode_bytes(ids), ids

    def changed_ranks(rng):
        lines = ranks.splitlines(keepends=True)
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(lines))
            lines[i] = rng.choice(
                (
                    lines[rng.randrange(len(lines))],
                    b"",
                    m.bytes_(rng, lines[i]),
                    base64.b64encode(rng.randbytes(rng.randint(0, 5)))
                    + b" %d\n" % rng.choice((0, 3, 290, 2**20, 2**31, 10**9 - 1)),
                )
            )
        again.write_bytes(b"".join(lines))
        return again.stat().st_size

    def draw(rng):
        form, text = rng.choice((*forms, tiktoken)), m.text(rng)
        if form is tiktoken:
            if again.is_dir():
                shutil.rmtree(again)
            pattern = rng.choice(("gpt2", "cl100k"))
            return changed_ranks(rng), lambda: use(
                lambda b: Tokenizer.from_tiktoken(again, {}, pattern, backend=b), text
            )
        again.unlink() if again.is_file() else None
        return m.changed_copy(rng, form, again), lambda: use(
            lambda b: Tokenizer.from_pretrained(again, backend=b), text
        )

    return draw


@target(ValueError, OSError)
def chats(folder):
    tokenizer = Tokenizer.train(
        TEXTS,
        290,
        stop_early=True,
        special_tokens=["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
    )
    turns = [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    records = [
        {"messages": turns},
        {"prompt": "a", "completion": "b"},
        {"prompt": turns[:2], "completion": turns[2:]},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"chosen": turns, "rejected": [*turns[:2], {"role": "assistant", "content": "no"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "image": "x"},
        {"instruction": "a", "input": "", "output": "b", "history": [["q", "a"]]},
        {"instruction": "a", "completions": [{"response": r, "overall_score": n} for n, r in enumerate("bc")]},
        {"input": {"messages": turns[:2]}, "preferred_output": turns[2:], "non_preferred_output": turns[2]},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
                      {"role": "assistant", "content": None, "tool_calls": [
                          {"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
                      {"role": "tool", "content": "3"}, {"role": "assistant", "content": "b", "weight": 1}],
         "tools": [{"type": "function", "function": {"name": "f"}}]},
    ]

    def draw(rng):
        path = folder / rng.choice(("chats.jsonl", "chats.json"))
        lines = [
            m.json_text(rng, m.json_(rng, record) if rng.random() < 0.7 else record)
            for record in rng.choices(records, k=rng.randint(1, 4))
        ]
        if path.suffix == ".json" and rng.random() < 0.7:
            path.write_bytes(b"[" + b", \n".join(lines) + b"]"[:rng.randint(0, 1)])
        else:
            path.write_bytes(rng.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\0", b"\x85")).join(lines))
        read = rng.choice((read_examples, read_preferences))
        return path.stat().st_size, lambda: read(path, tokenizer)

    return draw
