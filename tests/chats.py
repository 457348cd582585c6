"""A tokenizer that knows the marks of a chat, a tiny model for it, and conversations."""
import json

import numpy as np

from minillm import GPT, GPTConfig, Tokenizer
from minillm.posttrain.sft import ChatData
from minillm.tokenizer import chat_template as chat

TOK = Tokenizer.train(["hello there, what is a hen? a hen says cluck. 0123456789+="], 265)
CHAT = TOK.with_special_tokens(chat.MARKS)
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is a hen?"},
        {"role": "assistant", "content": "a bird"}, {"role": "user", "content": "says?"},
        {"role": "assistant", "content": "cluck"}]
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "dropout": 0.0}


def talk(question="what is a hen?", answer="a bird"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def small_model(tokenizer=CHAT, dtype=np.float64, seed=0):
    return GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **SMALL), seed, dtype)


def write(path, records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    return path


def chat_data(count=30, row_tokens=64, **kwargs):
    examples = [chat.encode_messages(CHAT, talk(f"{i}?", "cluck" * (i % 3 + 1))) for i in range(count)]
    return ChatData(examples, CHAT, SMALL["block_size"], row_tokens, **kwargs)
