"""Added tokens are cut out as Hugging Face's tokenizers does it, with all its options."""
import random
import unicodedata
from functools import partial

import pytest

from minillm.tokenizer.added import AddedToken, cut_out


def cut(text, tokens, allowed=None, normalize=None):
    return list(cut_out(text, tokens, [t.text for t in tokens] if allowed is None else allowed, normalize))


def test_the_longest_wins_and_the_rest_is_text():
    tokens = [AddedToken("<|a|>", 0), AddedToken("<|a|><|b|>", 1), AddedToken("b", 2, special=False)]
    assert cut("x<|a|><|b|>b<|a|>", tokens) == [("x", None), ("<|a|><|b|>", 1), ("b", 2), ("<|a|>", 0)]
    assert cut("<|a|><|b|>b", tokens, ()) == [("<|a|><|b|>", None), ("b", 2)]        # none inside what is not allowed
    assert cut("<|a|><|b|>", tokens[:2], {"<|a|>"}) == [("<|a|>", 0), ("<|b|>", None)]


def test_options():
    strips = [AddedToken("<m>", 0, lstrip=True, rstrip=True)]
    assert cut("a \n<m>\u3000 b\x1c<m>", strips) == [("a", None), (" \n<m>\u3000 ", 0), ("b\x1c", None), ("<m>", 0)]
    word = [AddedToken("un", 0, single_word=True)]
    assert [id for _, id in cut("un un. unix un\u200d un\u0301 _un", word)] == [0, None, 0, None]
    normal = [AddedToken("E\u0301", 0, normalized=True), AddedToken("a", 1, normalized=False)]
    nfc = partial(unicodedata.normalize, "NFC")
    assert cut("\xc9E\u0301a\u030a", normal, normalize=nfc) == [("\xc9", 0), ("\xc9", 0), ("a", 1), ("\u030a", None)]


PARTS = [*"ab\xe9 '<|>_\u0301\u200d\u3000\n1", "  ", "<a>", "E\u0301", "\u212b", "\xa0"]


@pytest.mark.parametrize("form", [None, "NFC", "NFKC"])
@pytest.mark.parametrize("special_as_text", [False, True])
def test_random_tokens_as_at_hugging_face(form, special_as_text):
    hf = pytest.importorskip("tokenizers")
    normalize = partial(unicodedata.normalize, form) if form else str
    rng = random.Random(0)
    for _ in range(100):
        theirs, seen = hf.Tokenizer(hf.models.BPE(vocab={}, merges=[])), set()
        theirs.encode_special_tokens = special_as_text
        if form:
            theirs.normalizer = getattr(hf.normalizers, form)()
        for _ in range(rng.randint(1, 6)):
            text = "".join(rng.choices(PARTS, k=rng.randint(1, 3)))
            options = {name: rng.random() < 0.4 for name in AddedToken._fields[2:]}
            if not {text, normalize(text)} & seen and not text.isspace():       # two of them may make it panic
                theirs.add_tokens([hf.AddedToken(text, **options)])
                seen |= {text, normalize(text)}
        ours = [AddedToken(t.content, id, *(getattr(t, name) for name in AddedToken._fields[2:]))
                for id, t in theirs.get_added_tokens_decoder().items()]
        for _ in range(10):
            text = "".join(rng.choices(PARTS + [token.text for token in ours], k=rng.randint(0, 12)))
            found = cut(text, ours, () if special_as_text else None, normalize)
            assert [id for _, id in found if id is not None] == theirs.encode(text).ids, (text, ours)
