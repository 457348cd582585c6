"""Every kind of byte-level tokenizer.json gives the ids that `tokenizers` gives, in C++ and in Python, saved and loaded."""
import json

import pytest
from tokenizer_kinds import COMMITTED, FOLDER, KINDS, build, odd_texts
from tokenizer_texts import ENGLISH, MIXED, needs_core

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.roles import opened


@pytest.mark.parametrize("backend", ["python", pytest.param("cpp", marks=needs_core)])
@pytest.mark.parametrize("name", COMMITTED)
def test_ids_that_tokenizers_gave(name, backend, tmp_path):
    ours = Tokenizer.from_pretrained(FOLDER / f"{name}.json", backend=backend)
    ours.save(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    for text, ids in json.loads((FOLDER / f"{name}_ids.json").read_text()):
        assert ours.with_template(ours.encode(text, "all")) == ids == again.with_template(again.encode(text, "all"))


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    theirs = build(request.param)
    theirs.save(str(path))
    return theirs, path


@pytest.mark.parametrize("backend", ["python", pytest.param("cpp", marks=needs_core)])
def test_ids_as_at_hugging_face(kind, backend, tmp_path):
    theirs, path = kind
    ours = Tokenizer.from_pretrained(path, backend=backend)
    ours.save(tmp_path)
    written = type(theirs).from_file(str(tmp_path / "tokenizer.json"))
    for text in [MIXED, ENGLISH[:20_000], *odd_texts(300)]:
        for special in (True, False):
            theirs.encode_special_tokens = written.encode_special_tokens = not special
            ids = theirs.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, "all" if special else (), ()) == ids, text
            assert written.encode(text, add_special_tokens=False).ids == ids, text
        theirs.encode_special_tokens = False
        assert ours.with_template(ours.encode(text, "all")) == theirs.encode(text).ids


def test_batches_streams_and_offsets(kind):
    theirs, path = kind
    ours = Tokenizer.from_pretrained(path)
    texts = odd_texts(60, seed=1)
    ids = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    assert ours.encode_batch(texts, "all") == ids
    text = "".join(texts)
    assert list(ours.encode_iterable(text, "all")) == theirs.encode(text, add_special_tokens=False).ids
    if ours.decode(ours.encode(text, "all")) == text:
        ids, spans = ours.encode_with_offsets(text, "all")
        assert ours.before or [list(span) for span in theirs.encode(text, add_special_tokens=False).offsets] == spans.tolist()      # Llama 3's post-processor cuts spaces off
    else:
        with pytest.raises(ValueError, match="offsets"):
            ours.encode_with_offsets(text, "all")


def test_a_template_opens_prompts():
    ours = Tokenizer.from_pretrained(FOLDER / "llama3.json")
    bos = ours.special_tokens["<s>"]
    assert opened(ours, ours.encode("hi")) == [bos, *ours.encode("hi")] == opened(ours, ours.encode("<s>hi", "all"))


@pytest.mark.parametrize("change, named", [
    ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"), ({"normalizer": {"type": "BertNormalizer"}}, "BertNorm"),
    ({"post_processor": {"type": "Odd"}}, "Odd"), ({"pre_tokenizer": {"type": "ByteLevel"}, "normalizer": 5}, "5"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}}, "must end"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\h+"}, "behavior": "Isolated"}, {"type": "ByteLevel"}]}}, r"\\h"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}, {"type": "ByteLevel"}]}}, "regular")])
def test_what_is_not_known_is_refused_by_name(change, named, tmp_path):
    document = json.loads((FOLDER / "smollm.json").read_text()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=named):
        Tokenizer.from_pretrained(tmp_path)
