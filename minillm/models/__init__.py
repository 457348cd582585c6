"""GPT-2 with explicit forward and backward passes; its parameters, KV cache, files, and other kinds of weights."""
