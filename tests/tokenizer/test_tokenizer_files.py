"""Directories as people have them: which of their files is read, and what those beside it add."""
import base64
import json

import pytest
from tokenizer_texts import ENGLISH, MIXED

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.formats import BYTE_ORDER
from minillm.tokenizer.rank_files import ENCODINGS
from minillm.tokenizer.roles import opened


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train([ENGLISH[:20_000]], 300, special_tokens=["<|endoftext|>"])


@pytest.fixture
def directory(small, tmp_path):
    small.save_vocab_merges(tmp_path)
    return tmp_path


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def test_added_tokens_json(small, directory):
    """As transformers has them: without a role they are plain tokens, found wherever they stand."""
    write(directory / "added_tokens.json", {"<|startoftext|>": 300, "<|pad|>": 305, "qzxw": 301})
    tok = Tokenizer.from_pretrained(directory)
    assert tok.vocab_size == 306 and tok.special_tokens == {"<|endoftext|>": 299}
    assert tok.encode("<|startoftext|>hello") == [300, *small.encode("hello")]
    assert tok.encode("a qzxw b") == [*small.encode("a "), 301, *small.encode(" b")]
    assert tok.decode([300, 301, 305]) == "<|startoftext|>qzxw<|pad|>"


def test_files_that_begin_with_a_bom(small, directory):
    for name in ("vocab.json", "merges.txt"):
        (directory / name).write_bytes(b"\xef\xbb\xbf" + (directory / name).read_bytes())
    assert Tokenizer.from_pretrained(directory).encode(ENGLISH[:500]) == small.encode(ENGLISH[:500])


def test_special_tokens_map_json(small, directory):
    write(directory / "added_tokens.json", {"<|startoftext|>": 300, "<|pad|>": 301, "qzxw": 302})
    write(directory / "special_tokens_map.json",
          {"bos_token": "<|startoftext|>", "pad_token": {"content": "<|pad|>", "lstrip": False},
           "eos_token": "<|endoftext|>", "sep_token": "<|sep|>", "additional_special_tokens": ["<|more|>"]})
    tok = Tokenizer.from_pretrained(directory)
    assert tok.special_tokens == {"<|startoftext|>": 300, "<|pad|>": 301, "<|endoftext|>": 299, "<|sep|>": 303,
                                  "<|more|>": 304}
    assert tok.roles["bos_token"] == "<|startoftext|>" and tok.eot_token == 299
    assert tok.encode("<|pad|>qzxw", disallowed_special=()) == [*small.encode_ordinary("<|pad|>"), 302]


def test_added_tokens_decoder(small, directory):
    write(directory / "tokenizer_config.json", {"eos_token": "<|end|>", "added_tokens_decoder": {
        "299": {"content": "<|endoftext|>", "special": True},
        "300": {"content": "<|end|>", "special": True, "lstrip": True},
        "301": {"content": "plain", "special": False, "single_word": True, "normalized": True}}})
    write(directory / "added_tokens.json", {"<|other|>": 302})                  # not read beside that
    tok = Tokenizer.from_pretrained(directory)
    assert tok.special_tokens == {"<|endoftext|>": 299, "<|end|>": 300} and tok.vocab_size == 302
    assert tok.encode("a <|end|>b", "all") == [*small.encode("a"), 300, *small.encode("b")]
    assert tok.encode("plainly plain") == [*small.encode("plainly "), 301]


def test_a_vocabulary_without_an_end_gets_one(small, directory):
    ids = json.loads((directory / "vocab.json").read_text())
    del ids["<|endoftext|>"]
    write(directory / "vocab.json", ids)
    assert Tokenizer.from_pretrained(directory).special_tokens == {"<|endoftext|>": 299}


def test_openai_names(small, directory):
    """GPT-2's release calls them encoder.json and vocab.bpe."""
    (directory / "vocab.json").rename(directory / "encoder.json")
    (directory / "merges.txt").rename(directory / "vocab.bpe")
    for path in (directory, directory / "encoder.json"):
        assert Tokenizer.from_pretrained(path).encode(MIXED) == small.encode(MIXED)


def ranks(path, tokens):
    path.write_text("".join(f"{base64.b64encode(token).decode()} {id}\n" for id, token in enumerate(tokens)))


@pytest.mark.parametrize("name, specials", [
    ("gpt2.tiktoken", {"<|endoftext|>": 50256}), ("r50k_base.tiktoken", {"<|endoftext|>": 50256}),
    ("cl100k_base.tiktoken", {"<|endoftext|>": 100257, "<|endofprompt|>": 100276, "<|fim_prefix|>": 100258}),
    ("o200k_base.tiktoken", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
    ("qwen.tiktoken", {"<|endoftext|>": 257, "<|im_end|>": 259, "<|extra_204|>": 464}),
    ("tokenizer.model", {"<|begin_of_text|>": 257, "<|eot_id|>": 266, "<|reserved_special_token_245|>": 512}),
])
def test_rank_files_by_name(tmp_path, name, specials):
    ranks(tmp_path / name, [*(bytes([byte]) for byte in BYTE_ORDER), b"12"])
    tok = Tokenizer.from_pretrained(tmp_path)
    assert specials.items() <= tok.special_tokens.items() and tok.pattern == ENCODINGS[name.split(".")[0]].pattern
    assert tok.vocab_size == 1 + max(tok.special_tokens.values())
    assert (tok.encode("12") == [256]) == (name != "qwen.tiktoken")             # where each digit is a word
    assert opened(tok, [5]) == ([257, 5] if name == "tokenizer.model" else [5])


def test_a_rank_file_of_another_name_is_refused(tmp_path):
    ranks(tmp_path / "mine.tiktoken", [bytes([byte]) for byte in range(256)])
    with pytest.raises(ValueError, match=r"mine\.tiktoken: a rank file says neither .* use Tokenizer.from_tiktoken"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_token_that_no_merge_makes_is_a_word_of_its_own(tmp_path):
    """As .:.: is among Llama 3's, whose parts .: and :. exclude each other."""
    ranks(tmp_path / "cl100k_base.tiktoken", [*(bytes([byte]) for byte in range(256)), b"aa", b"aaaab"])
    tok = Tokenizer.from_pretrained(tmp_path)
    assert tok.encode("aaaab") == [257] and tok.encode("aaaabb") == [256, 256, 98, 98]


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_transformers_reads_the_same_pair(directory):
    transformers = pytest.importorskip("transformers")
    write(directory / "added_tokens.json", {"<|startoftext|>": 300, "qzxw": 301})
    theirs, tok = transformers.GPT2Tokenizer.from_pretrained(directory), Tokenizer.from_pretrained(directory)
    for text in ("<|startoftext|>hello", "a qzxw b<|endoftext|>", MIXED):
        assert theirs(text)["input_ids"] == tok.encode(text, "all")
