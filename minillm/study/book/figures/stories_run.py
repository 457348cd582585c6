"""A small model trained on the stories, recorded once: its loss as it trains, and what its heads attend to.

The figures `loss_floor` and `attention_patterns` draw data/stories_run.json, which this makes again in minutes:

    python -m minillm.study.book.figures.stories_run
"""
import json
from pathlib import Path
from typing import Any

import numpy as np

from ....config import GPTConfig
from ....data.sources.stories import stories
from ....evaluate.perplexity import bits_per_byte, surprises
from ....kernels.select import select
from ....models.gpt2 import GPT
from ....ops.attention import attention_forward
from ....storage.atomic import write_json
from ....tokenizer import Tokenizer
from ....train.optim import AdamW, clip_scale, global_norm
from ....train.schedule import wsd_schedule

RECORD = Path(__file__).parent / "data" / "stories_run.json"
SHAPE: dict[str, Any] = {"n_layer": 3, "n_head": 4, "n_embd": 96, "block_size": 160}
STEPS, BATCH, RATE, VOCABULARY, UNSEEN = 2400, 8, 3e-3, 768, 60
LOOKED_AT = "Long ago a shy girl called Mira lived by the sea. She had a red key from her aunt. One sunny day she went"


def recorded() -> dict:
    """What data/stories_run.json holds."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def train(steps: int = STEPS, count: int = 16_000,
          unseen: int = UNSEEN) -> tuple[GPT, Tokenizer, list[dict[str, float]]]:
    """The model, its tokenizer and the curve: bits per byte of stories that it has never seen."""
    texts, held_out = stories(count, 1), stories(unseen, 2)
    tokenizer = Tokenizer.train(texts[:2000], vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"])
    stream = np.array([id for text in texts for id in [tokenizer.eot_token, *tokenizer.encode_ordinary(text)]])
    model = GPT(GPTConfig(**SHAPE, vocab_size=VOCABULARY), seed=0)
    optimizer, rng = AdamW(model.params, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1), np.random.default_rng(3)
    curve: list[dict[str, float]] = []
    for step in range(steps + 1):
        if step % 200 == 0 or step in (1, 2, 5, 10, 20, 50, 100):
            curve.append({"step": step, "bits_per_byte": bits_per_byte(surprises(model, tokenizer, held_out))})
        starts = rng.integers(0, len(stream) - SHAPE["block_size"] - 1, BATCH)
        rows = stream[starts[:, None] + np.arange(SHAPE["block_size"] + 1)]
        _, grads = model.loss_and_grads(rows[:, :-1].copy(), rows[:, 1:].copy())
        rate = wsd_schedule(step, 50, round(0.6 * steps), steps, RATE, 0.0)
        optimizer.step(grads, lr=rate, scale=clip_scale(global_norm(grads), 1.0))
    return model, tokenizer, curve


def attention_maps(model: GPT, ids: list[int]) -> list[list[np.ndarray]]:
    """P[t, s] of each layer and head, computed by the reference op inside the model's own forward."""
    maps = []

    def watched(qkv: np.ndarray, n_head: int) -> tuple:
        out, cache = attention_forward(qkv, n_head)
        maps.append(list(cache[2][0]))
        return out, cache

    model.on(select("numpy")._replace(attention_forward=watched)).forward(np.array([ids]))
    return maps


def record() -> None:
    """Train, look, and write data/stories_run.json."""
    model, tokenizer, curve = train()
    ids = tokenizer.encode_ordinary(LOOKED_AT)
    maps = [[head.round(3).tolist() for head in layer] for layer in attention_maps(model, ids)]
    held_out = stories(UNSEEN, 2)
    found = {"made by": "python -m minillm.study.book.figures.stories_run", "parameters": model.params.flat.size,
             "steps": STEPS, "tokens_per_step": BATCH * SHAPE["block_size"], "curve": curve,
             "held_out_bytes": sum(len(text.encode()) for text in held_out),
             "tokens": [tokenizer.decode([id]) for id in ids], "attention": maps}
    RECORD.parent.mkdir(exist_ok=True)
    write_json(RECORD, found)


if __name__ == "__main__":
    record()
