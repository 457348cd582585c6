"""A Llama directory with a tokenizer of SentencePiece's kind: generated, evaluated, its shards written and read."""
import json

import numpy as np
import pytest
import sentencepiece_cases

from minillm import Llama, LlamaConfig
from minillm.data.shards.prepare import prepare, tokenizer_of
from minillm.data.shards.source import describe_tokenizer
from minillm.evaluate.choice import scores_of
from minillm.evaluate.perplexity import surprises
from minillm.generation.sampling import Sampling
from minillm.generation.text import generate_text, load_generator
from minillm.models.load import load

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module", params=["llama2", "gemma", "first"])
def directory(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    document = sentencepiece_cases.load()[0][request.param]
    (path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    size = 702 if request.param == "gemma" else 700
    config = LlamaConfig(n_layer=1, n_head=2, n_kv_head=1, n_embd=16, n_inner=24, block_size=64, vocab_size=size)
    Llama(config, seed=1).save_pretrained(path)
    return path


def test_generated_behind_the_beginning_of_a_text(directory):
    """The prompt's ids begin with <s>, as `tokenizers` encodes it; the text goes on with all its blanks."""
    model, tok = load(directory)
    generator = load_generator(directory)
    written = generate_text(generator, "the cat", 12, GREEDY)
    ids = tok.with_template(tok.encode("the cat"))
    assert ids[0] == 1
    for token in written["tokens"]:
        best = int(np.argmax(model.forward(np.array([ids]))[0][0, -1]))
        assert token["id"] == best
        ids.append(best)
    assert tok.decode_bytes(ids[1:]).decode(errors="replace") == "the cat" + written["text"]
    assert generate_text(generator, "", 4, GREEDY)["tokens"]                    # behind <s> alone


def test_evaluated_behind_the_beginning_of_a_text(directory):
    model, tok = load(directory)
    ids = tok.encode("the cat sat")
    (nats,) = surprises(model, tok, ["the cat sat"])
    losses, _ = model.losses(np.array([[1, *ids[:-1]]]), np.array([ids]))
    assert nats.nats == pytest.approx(losses.sum(), rel=1e-5)
    logp, count, _ = next(scores_of(model, tok, [("the cat", " sat")]))      # what goes on with a text
    assert count == len(tok.encode_continuation(" sat")) and logp == pytest.approx(-losses[-count:].sum(), rel=1e-5)


def test_shards(directory, tmp_path):
    _, tok = load(directory)
    texts = [(f"d{i}", f"The cat number {i} said: naïve café 🙂.\n" * 8) for i in range(40)]
    tok, shards = prepare(lambda: iter(texts), tmp_path, tok)
    again = tokenizer_of(tmp_path, shards)
    assert describe_tokenizer(again, 0) == describe_tokenizer(tok, 0)
    ids = np.concatenate(shards.train.arrays)
    parts = np.split(ids, np.flatnonzero(ids == tok.eot_token) + 1)
    documents = {again.decode(part[:-1]) for part in parts if len(part)}
    assert documents <= {text for _, text in texts} and len(documents) > 20
