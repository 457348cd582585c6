"""A tokenizer's files: what is saved comes back, and what is missing, damaged or hostile gives one clear error."""
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import MIXED, SPECIALS, needs_core, often, seldom
from tolerances import assert_same_bits

from minillm.tokenizer import Tokenizer, formats
from minillm.tokenizer.formats import BYTE_ORDER


def same(one, two):
    return (one.merges == two.merges and one.special_tokens == two.special_tokens and one.pattern == two.pattern
            and one._tokens == two._tokens and one.encode(MIXED, "all") == two.encode(MIXED, "all"))


def test_saved_and_loaded_are_the_same(tok, tmp_path):
    tok.save(tmp_path / "new" / "folder")
    assert same(tok, Tokenizer.from_pretrained(tmp_path / "new" / "folder"))
    assert same(tok, Tokenizer.from_pretrained(str(tmp_path / "new" / "folder" / "tokenizer.json")))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["tokenizer.json"]
    before = (tmp_path / "new" / "folder" / "tokenizer.json").read_bytes()
    Tokenizer.from_pretrained(tmp_path / "new" / "folder").save(tmp_path)
    assert_same_bits((tmp_path / "tokenizer.json").read_bytes(), before)


def test_vocab_and_merges_files(tok, tmp_path):
    tok.save_vocab_merges(tmp_path)
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    assert same(tok, Tokenizer.from_vocab_merges(*files, SPECIALS, pattern=tok.pattern))
    if tok.pattern == "gpt2":
        assert Tokenizer.from_pretrained(tmp_path).eot_token == tok.eot_token
    grown = Tokenizer.from_vocab_merges(*files, [*SPECIALS, "<|new|>"])
    assert grown.special_tokens["<|new|>"] == tok.vocab_size and grown.vocab_size == tok.vocab_size + 1
    files[1].write_bytes(files[1].read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.from_vocab_merges(*files, SPECIALS).merges == tok.merges


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")


small = Tokenizer.train("the cat and the hat, the end", 268)


@seldom
@given(data=st.data())
def test_damaged_files_give_one_clear_error(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("damaged")
    small.save(directory)
    path = directory / "tokenizer.json"
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 3))
    path.write_bytes(content[:cut] + data.draw(st.sampled_from([b"", b"\xff", b"\x00\x00", b"[" * 50_000, b"]}"])))
    with pytest.raises(ValueError, match="tokenizer.json"):
        Tokenizer.from_pretrained(directory)


def set_to(*keys):
    *path, last, value = keys

    def change(document):
        for key in path:
            document = document[key]
        document[last] = value
    return change


@pytest.mark.parametrize("change", [
    set_to("model", 5), set_to("model", None), set_to("model", "type", "WordPiece"), set_to("model", "vocab", []),
    set_to("model", "vocab", "!", 1), set_to("model", "vocab", "!", -1), set_to("model", "vocab", "!", 10**15),
    set_to("model", "vocab", "!", 0.0), set_to("model", "vocab", "!", [0]), set_to("model", "vocab", "!", True),
    set_to("model", "vocab", "▁the", 269), set_to("model", "vocab", "", 269),
    set_to("model", "vocab", "<|endoftext|>", 0),
    set_to("model", "merges", None), set_to("model", "merges", ["a"]), set_to("model", "merges", ["a b c"]),
    set_to("model", "merges", [["a", 5]]), set_to("model", "merges", ["▁ a"]), set_to("model", "merges", ["q z"]),
    set_to("model", "merges", ["t h", "t h"]),
    set_to("model", "byte_fallback", True), set_to("model", "ignore_merges", 1), set_to("model", "dropout", 0.1),
    set_to("normalizer", {"type": "Nmt"}), set_to("pre_tokenizer", None), set_to("pre_tokenizer", []),
    set_to("post_processor", {"type": "Sequence"}), set_to("pre_tokenizer", {"type": "Whitespace"}),
    set_to("pre_tokenizer", {"type": "Sequence", "pretokenizers": [None]}), set_to("added_tokens", {}),
    set_to("added_tokens", [1]), set_to("added_tokens", 0, "content", 5), set_to("added_tokens", 0, "id", "7"),
    set_to("added_tokens", 0, "id", 3), set_to("added_tokens", 0, "lstrip", 1),
    set_to("added_tokens", 0, "content", "\ud800")])
def test_wrong_contents_give_one_clear_error(tmp_path, change):
    small.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json"):
        Tokenizer.from_pretrained(path)


@seldom
@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                          lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)),
       place=st.sampled_from([("model",), ("model", "vocab"), ("model", "merges"), ("pre_tokenizer",),
                              ("added_tokens",),
                              ("model", "merges", 0), ("model", "vocab", "a"), ("added_tokens", 0),
                              ("added_tokens", 0, "content"), ("added_tokens", 0, "id"), ("model", "type")]))
def test_hostile_contents_give_a_tokenizer_or_a_value_error(tmp_path_factory, value, place):
    directory = tmp_path_factory.mktemp("hostile")
    small.save(directory)
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    set_to(*place, value)(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    try:
        loaded = Tokenizer.from_pretrained(path)
    except ValueError as error:
        assert "tokenizer.json" in str(error)
    else:
        assert loaded.decode(loaded.encode(MIXED, "all")) == MIXED


def test_parts_of_a_merge_must_be_tokens():
    tokens = [bytes([byte]) for byte in BYTE_ORDER] + [b"ab", b"bc", b"abc", b"abcd"]
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc"), (b"abc", b"d")]     # two ways to abc: fine
    assert Tokenizer(tokens, merges, {}).decode_bytes([258]) == b"abc"
    with pytest.raises(ValueError, match="merge 5"):
        Tokenizer(tokens, [*merges, (b"ab", b"cd")], {})


@needs_core
def test_merges_in_any_order():
    """As Llama 3's, which are all pairs of tokens that make a third: a merge may stand before those of its parts."""
    tokens = [bytes([byte]) for byte in BYTE_ORDER] + [b"ab", b"bc", b"abc", b"abcd"]
    merges = [(b"abc", b"d"), (b"a", b"bc"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"b")]
    cpp, python = (Tokenizer(tokens, merges, {}, backend=backend) for backend in ("cpp", "python"))
    assert python.encode("abcd") == [259]
    for text in ("abcabcd", "aabbccdd", "abcd" * 30, "abc" * 50):
        assert cpp.encode(text) == python.encode(text)


def test_a_repeated_key_is_an_error(tmp_path):
    small.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"!": 0,', '"!": 0, "!": 0,'), encoding="utf-8")
    with pytest.raises(ValueError, match="twice"):
        Tokenizer.from_pretrained(path)


@pytest.mark.parametrize("vocab, merges", [("{", ""), ("[]", ""), ('{"a": 0}', ""), (None, "x"), (None, "▁ a"),
                                           (None, "q z"), (None, b"\xff")])
def test_wrong_vocab_or_merges_name_the_file(tmp_path, vocab, merges):
    small.save_vocab_merges(tmp_path)
    if vocab is not None:
        (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    with pytest.raises(ValueError, match=r"vocab\.json" if vocab is not None else r"merges\.txt"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def sound_json(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    Tokenizer.train("the cat sat on the mat " * 3, 264).save(directory)
    return (directory / "tokenizer.json").read_bytes()


@needs_core
@often
@given(data=st.data())
def test_hostile_tokenizer_json_gives_one_clear_error(sound_json, tmp_path_factory, data):
    """Damage anywhere in the file: the same ids from both backends, or a ValueError that names the file."""
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    raw = bytearray(sound_json)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        new = st.binary(max_size=3) | st.sampled_from([b"null", b"-1", b"1e9", b"[[", b'"'])
        raw[at:at + data.draw(st.integers(0, 3))] = data.draw(new)
    path.write_bytes(raw)
    try:
        both = [Tokenizer.from_pretrained(path, backend=backend) for backend in ("cpp", "python")]
    except ValueError as error:
        assert "tokenizer.json" in str(error)
    else:
        assert both[0].encode(MIXED, "all") == both[1].encode(MIXED, "all")


@needs_core
def test_files_larger_than_any_tokenizer_are_refused(tmp_path, monkeypatch):
    Tokenizer.train("abab", 257, []).save(tmp_path)
    with pytest.raises(ValueError, match="folder"):
        Tokenizer.from_vocab_merges(tmp_path, tmp_path)
    monkeypatch.setattr(formats, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="tokenizer.json.*larger"):
        Tokenizer.from_pretrained(tmp_path)
