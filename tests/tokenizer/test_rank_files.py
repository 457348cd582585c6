"""tiktoken's rank files: written, read back, read by tiktoken; hostile files give one clear error."""
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import ENGLISH, MIXED, needs_core, seldom

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.formats import BYTE_ORDER
from minillm.tokenizer.pretokenize import PATTERNS

pytestmark = needs_core


@pytest.fixture(scope="module")
def rank_file(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "ours.tiktoken"
    pair[0].save_tiktoken(path)
    return path


def test_a_rank_file_comes_back(pair, rank_file):
    cpp = pair[0]
    again = Tokenizer.from_tiktoken(rank_file, cpp.special_tokens, cpp.pattern)
    assert again._parts() == cpp._parts()
    with_gap = Tokenizer.from_tiktoken(rank_file, {"<|far|>": cpp.vocab_size + 20}, cpp.pattern)
    assert with_gap.vocab_size == cpp.vocab_size + 21 and with_gap.encode("<|far|>", "all") == [cpp.vocab_size + 20]
    with pytest.raises(ValueError, match="not in the vocabulary"):
        with_gap.decode([cpp.vocab_size + 3])
    with_gap.save(rank_file.parent / "gap")
    assert Tokenizer.from_pretrained(rank_file.parent / "gap")._parts() == with_gap._parts()


def test_tiktoken_reads_what_we_write(pair, rank_file):
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import load_tiktoken_bpe
    if pair[0].pattern not in PATTERNS:
        pytest.skip("several steps, which tiktoken does not have")
    theirs = tiktoken.Encoding("ours", pat_str=PATTERNS[pair[0].pattern],
                               mergeable_ranks=load_tiktoken_bpe(str(rank_file)),
                               special_tokens=pair[0].special_tokens)
    text = MIXED * 2 + ENGLISH[:100_000] + "<|user|><|again|><|endoftext|>"
    assert theirs.encode(text, allowed_special="all") == pair[0].encode(text, "all")
    for wrong in ("<|user|>",):
        with pytest.raises(ValueError):
            theirs.encode(wrong)
        with pytest.raises(ValueError):
            pair[0].encode(wrong)


def test_a_vocabulary_out_of_order_has_no_rank_file(tmp_path):
    tokens = [b"bc", b"ab"] + [bytes([byte]) for byte in BYTE_ORDER]
    tok = Tokenizer(tokens, [(b"a", b"b"), (b"b", b"c")], {})
    with pytest.raises(ValueError, match="order of the merges"):
        tok.save_tiktoken(tmp_path / "x.tiktoken")


hostile_lines = st.lists(st.binary(max_size=30) | st.sampled_from(
    [b"YWI= 300", b"YWI= 256", b"YWJj 257", b"!!!! 3", b"YQ== 99999999999", b"YQ== -1", b" 5", b"YQ==",
     b"\xff 1", b"YWI= \xd9\xa3"]),
    max_size=5)


@seldom
@given(extra=hostile_lines, drop=st.integers(0, 1500), cut=st.integers(0, 20))
def test_hostile_rank_files_give_one_clear_error(pair, rank_file, extra, drop, cut):
    lines = rank_file.read_bytes().split(b"\n")
    data = b"\n".join(lines[:drop] + lines[drop + (drop % 2):] + extra)
    path = rank_file.parent / "hostile.tiktoken"
    path.write_bytes(data[:len(data) - cut])
    try:
        tok = Tokenizer.from_tiktoken(path, {}, pair[0].pattern)
    except ValueError as error:
        assert "hostile.tiktoken" in str(error)
    else:
        assert tok.decode(tok.encode(MIXED)) == MIXED


def test_a_larger_file_of_llama_3s_name_is_not_taken_for_it(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("minillm.tokenizer.rank_files.LLAMA3_RANKS", 300)
    pair[0].save_tiktoken(tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="tokenizer.model of .* ranks is not Llama 3's, which has 300"):
        Tokenizer.from_pretrained(tmp_path)
