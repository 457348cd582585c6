"""The same ids as Hugging Face's tokenizers, transformers and tiktoken, from the same files."""
import pytest
from hypothesis import example, given
from tokenizer_texts import ENGLISH, MIXED, SPECIALS, often, texts

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.pretokenize import PATTERNS


@pytest.fixture(scope="module")
def saved(tok, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    tok.save(directory)
    tok.save_vocab_merges(directory)
    return directory


@pytest.fixture(scope="module")
def theirs(saved):
    return pytest.importorskip("tokenizers").Tokenizer.from_file(str(saved / "tokenizer.json"))


@often
@given(text=texts)
@example(text=MIXED)
@example(text=ENGLISH[:50_000])
@example(text="a\n  ")
@example(text="hi <|endoftext|>\n<|user|><|again|>  x")
def test_ids_equal_hugging_face(tok, theirs, text):
    encoding = theirs.encode(text, add_special_tokens=False)
    assert encoding.ids == tok.encode(text, allowed_special="all")
    assert theirs.decode(encoding.ids, skip_special_tokens=False) == text


def test_ids_equal_transformers(tok, saved):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(saved / "tokenizer.json"))
    text = MIXED + ENGLISH[:50_000] + "<|endoftext|>"
    assert fast(text)["input_ids"] == tok.encode(text, "all")
    assert fast.vocab_size == tok.vocab_size - len(SPECIALS) or fast.vocab_size == tok.vocab_size


def test_hugging_face_reads_vocab_and_merges(tok, saved):
    hf = pytest.importorskip("tokenizers")
    model = hf.models.BPE.from_file(str(saved / "vocab.json"), str(saved / "merges.txt"))
    theirs = hf.Tokenizer(model)
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if tok.pattern == "gpt2":
        assert theirs.encode(MIXED).ids == tok.encode(MIXED)


def test_we_read_what_hugging_face_writes(tmp_path):
    hf = pytest.importorskip("tokenizers")
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = hf.decoders.ByteLevel()
    theirs.train_from_iterator([ENGLISH], hf.trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|endoftext|>", "<|pad|>"], show_progress=False,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet()))
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.special_tokens == {"<|endoftext|>": 0, "<|pad|>": 1} and ours.vocab_size == 800
    text = MIXED + ENGLISH[:30_000] + "<|pad|>"
    assert ours.encode(text, "all") == theirs.encode(text).ids


@pytest.fixture(scope="module")
def encoding(tok):
    """tiktoken with our ranks and its own form of the pattern."""
    pytest.importorskip("tiktoken")
    import tiktoken
    published = {"gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
                 "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
                           r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
                 "o200k": PATTERNS["o200k"]}
    special_ids = set(tok.special_tokens.values())
    ranks = {tok.token_bytes(i): i for i in range(tok.vocab_size) if i not in special_ids}
    return tiktoken.Encoding("ours", pat_str=published.get(tok.pattern, PATTERNS[tok.pattern]), mergeable_ranks=ranks,
                             special_tokens=tok.special_tokens)


def test_every_character_is_cut_as_by_tiktoken(tok, encoding):
    """The Unicode of the tables is tiktoken's: raise it in csrc/text/make_unicode_tables.py when tiktoken does."""
    for start in [*range(0, 0xD800, 0x1800), *range(0xE000, 0x34000, 0x1800), 0xE0000]:
        text = "".join(f"a{c}{c}'S {c}1\n{c}." for c in map(chr, range(start, start + 0x1800)))
        assert encoding.encode_ordinary(text) == tok.encode_ordinary(text), hex(start)


@often
@given(text=texts)
@example(text=MIXED)
@example(text=ENGLISH[:50_000])
@example(text="a\n  ")
@example(text="\ud83d\ude00 \ud83d 'ſ")
@example(text="a" * 1000)
@example(text="\U000107bd'S \U000107bd\u088f a\u088f'S")                 # letters since Unicode 17 and 18
def test_ids_equal_tiktoken(tok, encoding, text):
    assert encoding.encode(text, disallowed_special=()) == encoding.encode_ordinary(text) == tok.encode_ordinary(text)
    assert encoding.encode(text + "<|user|>", allowed_special="all") == tok.encode(text + "<|user|>", "all")
