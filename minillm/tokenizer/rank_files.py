"""Rank files that are known by their names: which pattern and which special tokens belong to them.

A rank file (formats.read_tiktoken) lists tokens alone. OpenAI publishes its own under the names of the encodings, Qwen
as qwen.tiktoken, and Llama 3 as tokenizer.model, which is the name of SentencePiece's files, too.
"""
from pathlib import Path
from typing import NamedTuple

END, BEGIN = "<|endoftext|>", "<|begin_of_text|>"
FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
LLAMA3 = (BEGIN, "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
          "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
          "<|eot_id|>", "<|python_tag|>", "<|image|>", *(f"<|reserved_special_token_{i}|>" for i in range(2, 246)))
LLAMA3_RANKS = 128_000                  # Llama 4's file has the same name, more ranks, and another pattern
QWEN = (END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


class Encoding(NamedTuple):
    """What a rank file does not say: the pattern, special tokens by id, and those that follow the ranks."""

    pattern: str
    special_tokens: dict[str, int]
    behind: tuple[str, ...] = ()


ENCODINGS = {
    "gpt2": Encoding("gpt2", {END: 50256}),
    "r50k_base": Encoding("gpt2", {END: 50256}),
    "p50k_base": Encoding("gpt2", {END: 50256}),
    "p50k_edit": Encoding("gpt2", {END: 50256, **{text: 50281 + i for i, text in enumerate(FIM)}}),
    "cl100k_base": Encoding("cl100k", {END: 100257, **{text: 100258 + i for i, text in enumerate(FIM)},
                                       "<|endofprompt|>": 100276}),
    "o200k_base": Encoding("o200k", {END: 199999, "<|endofprompt|>": 200018}),
    "qwen": Encoding("qwen2", {}, QWEN),
    "tokenizer": Encoding("llama3", {}, LLAMA3),
}


def encoding_of(path: Path) -> Encoding:
    """By the file's name. Raises ValueError for one that is not known."""
    if path.stem not in ENCODINGS:
        raise ValueError(f"{path}: a rank file says neither its pattern nor its special tokens, nor does this name "
                         f"(known are {', '.join(ENCODINGS)}): use Tokenizer.from_tiktoken")
    if path.stem == "tokenizer" and (ranks := path.read_bytes().count(b"\n")) > LLAMA3_RANKS:
        raise ValueError(f"{path}: tokenizer.model of {ranks:,} ranks is not Llama 3's, which has {LLAMA3_RANKS:,}: "
                         "use Tokenizer.from_tiktoken with its pattern and special tokens")
    return ENCODINGS[path.stem]
