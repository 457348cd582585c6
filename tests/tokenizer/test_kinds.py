"""Every kind of byte-level tokenizer.json gives the ids of `tokenizers`, in C++ and Python, also saved again."""
import json

import numpy as np
import pytest
from tokenizer_kinds import COMMITTED, FOLDER, KINDS, build, odd_texts
from tokenizer_texts import ENGLISH, MIXED, needs_core

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.formats import read_tokenizer_json
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
    if ours.pattern.startswith("[") and "add_prefix_space\": true" in ours.pattern:
        with pytest.raises(ValueError, match="places"):
            ours.encode_with_offsets(text, "all")
        return
    encoding = theirs.encode(text, add_special_tokens=False)
    ids, spans = ours.encode_with_offsets(text, "all")
    assert ids == encoding.ids
    if not ours.before and not ours.rules.normalizer and not ours.rules.prefix_space:
        assert [list(span) for span in encoding.offsets] == spans.tolist()
    assert (spans[:, 0] <= spans[:, 1]).all() and (np.diff(spans[:, 0]) >= 0).all() and spans[-1, 1] == len(text)


def test_offsets_of_normalized_text():
    document = json.loads((FOLDER / "smollm.json").read_text()) | {"normalizer": {"type": "NFC"}}
    ours = Tokenizer(*read_tokenizer_json(document)[:4], "auto", read_tokenizer_json(document)[4])
    ids, spans = ours.encode_with_offsets("ae\u0301 \u212bx\u4e2d", "all")
    pieces = {ours.decode([id]): "ae\u0301 \u212bx\u4e2d"[start:end] for id, (start, end) in zip(ids, spans)}
    assert ours.decode(ids) == "a\xe9 \xc5x\u4e2d" and pieces["a"] == "a" and pieces["x"] == "x"
    assert {tuple(span) for span in spans.tolist()} == {(0, 1), (1, 3), (3, 4), (4, 5), (5, 6), (6, 7)}


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
