"""From a conversation to the tokens of a prompt.

A model that was fine-tuned on conversations has marks for roles in its vocabulary (posttrain/chat.py). One that was not
gets plain text, which a model of the web has seen often enough to go on with:

    User: What is BPE?

    Assistant:

Only the template writes marks; the same characters inside a message are ordinary text, so nobody can speak in
another's name.
"""
from ..tokenizer.chat_template import END, MARKS, encode_prompt

VOICES = {"developer": "system"}        # OpenAI's newer name for it


def chat_prompt(tokenizer, messages):
    """messages [{"role", "content"}] -> (ids, stop strings, stop ids); the answer follows and ends at a stop."""
    messages = [{"role": VOICES.get(m["role"], m["role"]), "content": m["content"]} for m in messages]
    if all(mark in tokenizer.special_tokens for mark in MARKS):
        return encode_prompt(tokenizer, messages), (), {tokenizer.special_tokens[END]}
    text = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages) + "Assistant:"
    return tokenizer.encode_ordinary(text), ("\nUser:", "\nSystem:"), set()
