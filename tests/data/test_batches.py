"""Batches of documents: full by what their records hold, not by their texts alone."""
from minillm.data.batches import batched, weight


def test_a_record_weighs_what_it_holds():
    documents = [("a", "text", {"text": "text", "image": "x" * 600, "n": 5, "none": None}),
                 ("b", "text", {"text": "text", "vector": [0.5] * 500}), ("c", "text", {"text": "text"})] * 2
    assert [weight(document) for document in documents[:3]] == [604, 504, 4]
    names = [[name for name, _, _ in batch] for batch in batched(documents, weight, 1000)]
    assert names == [["a", "b"], ["c", "a", "b"], ["c"]]
