"""A small model as transformers writes its directory, that says "abc" and then its end token, over and over."""
import json

import numpy as np

from minillm import GPT, GPTConfig, Tokenizer

SPECIALS = ["<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def directory_that_ends(folder, end="</s>", config=None, generation=None, roles=None, special_map=None, template=None,
                        block_size=64):
    """The directory. end: what the model says behind "abc"; the rest are what its files say, None for no word."""
    tokenizer = Tokenizer.train(["the cat sat on the mat. " * 50], 275, SPECIALS, stop_early=True)
    said = [*tokenizer.encode("abc"), tokenizer.special_tokens[end]]
    assert len(said) == 4
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=block_size, vocab_size=tokenizer.vocab_size), 0)
    for name in ("h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight"):
        model.params[name][:] = 0
    wte = model.params["wte.weight"]
    wte[:] = np.random.default_rng(0).standard_normal(wte.shape)
    model.params["wpe.weight"][:] = 30 * wte[[said[place % 4] for place in range(block_size)]]     # by its place alone
    model.save_pretrained(folder)
    tokenizer.save(folder)
    ids = tokenizer.special_tokens
    numbers = lambda names: [ids[n] for n in names] if isinstance(names, list) else ids.get(names)      # noqa: E731
    add(folder / "config.json", {"eos_token_id": numbers(config), "bos_token_id": None})
    if generation is not None:
        add(folder / "generation_config.json", {"eos_token_id": numbers(generation)})
    if roles is not None or template is not None:
        add(folder / "tokenizer_config.json", (roles or {}) | ({"chat_template": template} if template else {}))
    if special_map is not None:
        add(folder / "special_tokens_map.json", special_map)
    return folder


def add(path, more):
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | more))


def said_after(length):
    """The text that it says after a prompt of so many tokens."""
    return "abc"[(length - 1) % 4:]
