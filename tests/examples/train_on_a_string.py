"""Memorize a string and write it down again: tokenizer, model, optimizer and generation in one page."""
import numpy as np

from minillm import GPT, AdamW, GPTConfig, Tokenizer, generate

TEXT = "She sells sea shells by the sea shore. The shells she sells are sea shells, I am sure. "
T = 16                                                              # the context window, in tokens

tokenizer = Tokenizer.train([TEXT], vocab_size=290, stop_early=True)
ids = np.array(tokenizer.encode(TEXT * 3))
# every window of the text is a sequence of the batch
starts = np.arange(0, len(ids) - T)
tokens = np.stack([ids[start:start + T] for start in starts])      # (B, T)
targets = np.stack([ids[start + 1:start + T + 1] for start in starts])

model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=T, vocab_size=tokenizer.vocab_size), seed=0)
optimizer = AdamW(model.params, lr=5e-3)
for step in range(81):
    loss, grads = model.loss_and_grads(tokens, targets)             # nats a token
    optimizer.step(grads)
    if step % 20 == 0:
        print(f"step {step:3}: loss {loss:.3f}")

prompt = tokenizer.encode("She sells")
print(tokenizer.decode(generate(model, prompt, max_new_tokens=30, temperature=0)))
