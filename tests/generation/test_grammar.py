"""Answers that follow a JSON schema: the masks are those of trying every token, and what is drawn is valid."""
import json

import numpy as np
import pytest
from tokenizer_texts import MIXED

from minillm import Tokenizer
from minillm.generation.grammar import Grammar
from minillm.generation.sampling import Sampling, sample

llguidance = pytest.importorskip("llguidance")

SCHEMAS = {
    "object": ({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": False}, {"name": "Zoë \"\n", "age": -12}),
    "enum": ({"enum": ["red", "green", 3, None]}, "green"),
    "array": ({"type": "array", "items": {"type": "number"}, "maxItems": 3}, [1, -2.5, 3e10]),
    "union": ({"anyOf": [{"type": "boolean"}, {"type": "object", "properties": {"☃": {"const": "漢字"}},
                                              "required": ["☃"], "additionalProperties": False}]}, {"☃": "漢字"}),
    "tree": ({"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "properties": {
        "v": {"type": "integer", "minimum": 0, "maximum": 99}, "l": {"$ref": "#/$defs/t"}}, "required": ["v"],
        "additionalProperties": False}}}, {"v": 7, "l": {"v": 42}}),
    "pattern": ({"type": "string", "pattern": "^[a-c]{2,4}-[0-9]+$"}, "abc-123"),
}
TOKENIZER = Tokenizer.train([MIXED + json.dumps([found[1] for found in SCHEMAS.values()]) * 9], 420,
                            special_tokens=["<|endoftext|>", "123", "<|end|>"])
END = TOKENIZER.special_tokens["<|end|>"]


class EachByte:
    """The same grammar over the vocabulary of the 256 bytes, which has no tokens to get wrong: what a token may do is
    what its bytes may do one after the other."""

    def __init__(self, schema):
        class Bytes:
            eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
            tokens = [bytes([i]) for i in range(256)] + [b"<end>"]

            def __call__(self, text):
                return list(text if isinstance(text, bytes) else text.encode())
        table = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()), slices=[])
        text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_pattern": " "})
        self.matcher = llguidance.LLMatcher(table, text)

    def allowed(self, specials):
        found = [i not in specials and self.tries(TOKENIZER.token_bytes(i)) for i in range(TOKENIZER.vocab_size)]
        found[END] = self.matcher.is_accepting()
        return np.array(found)

    def tries(self, data):
        matcher = self.matcher.deep_copy()
        return all(matcher.try_consume_tokens([byte]) == 1 for byte in data)

    def push(self, token):
        assert self.matcher.consume_tokens(list(TOKENIZER.token_bytes(token)))


def drawn(schema, seed, longest=60, oracle=None):
    """The bytes of an answer drawn from random logits, and whether it came to its end."""
    follower, rng, data = Grammar(TOKENIZER, schema).begin([END]), np.random.default_rng(seed), b""
    for position in range(longest):
        allowed = follower.allowed()
        if oracle:
            wrong = np.flatnonzero(allowed != oracle.allowed(set(TOKENIZER.special_tokens.values()) - {END}))
            assert not len(wrong), (data, [TOKENIZER.token_bytes(i) for i in wrong])
        logits = rng.standard_normal(TOKENIZER.vocab_size)
        token, _ = sample(logits, Sampling(seed=seed), position, (), allowed)
        if token == END:
            return data, True
        follower.push(token)
        data += TOKENIZER.token_bytes(token)
        if oracle:
            oracle.push(token)
        if follower.complete:
            return data, True
    return data, False


@pytest.mark.parametrize("name", SCHEMAS)
def test_masks_are_those_of_trying_every_token(name):
    for seed in range(3):
        drawn(SCHEMAS[name][0], seed, 25, EachByte(SCHEMAS[name][0]))


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_came_to_its_end_is_valid(name):
    jsonschema = pytest.importorskip("jsonschema")
    ended = 0
    for seed in range(30):
        data, whole = drawn(SCHEMAS[name][0], seed)
        if whole:
            ended += 1
            jsonschema.validate(json.loads(data), SCHEMAS[name][0])
    assert ended >= 5 or name == "tree"


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_no_valid_text_is_refused(name, separators):
    """However it is cut into tokens: as the tokenizer does, or byte by byte."""
    schema, value = SCHEMAS[name]
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    single = {TOKENIZER.token_bytes(i): i for i in range(256)}
    for ids in (TOKENIZER.encode_ordinary(text), [single[bytes([byte])] for byte in text.encode()]):
        follower = Grammar(TOKENIZER, schema).begin([END])
        for id in ids:
            assert follower.allowed()[id], TOKENIZER.token_bytes(id)
            follower.push(id)
        assert follower.allowed()[END]


def test_schemas_that_cannot_be_followed_are_refused():
    for schema in ({"type": "nonsense"}, {"properties": 5}, {"type": "string", "pattern": "("}, {"not": {}}):
        with pytest.raises(ValueError, match="the schema cannot be followed"):
            Grammar(TOKENIZER, schema)


def test_schemas_that_take_too_long_are_refused():
    """llguidance makes a state of every remainder: 10^8 of them would take an hour and 50 GB."""
    large = {"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}
    for schema in (large, {"items": {"multipleOf": 1e-6}}, {"multipleOf": 1e300}, {"enum": ["x" * 70_000]}):
        with pytest.raises(ValueError, match="must be .*at most"):
            Grammar(TOKENIZER, schema)
    Grammar(TOKENIZER, {"properties": {"price": {"type": "number", "multipleOf": 0.01}, "n": {"multipleOf": 60}}})


def test_a_schema_does_not_change_the_form():
    """Its x-guidance may not ask for endless space."""
    follower = Grammar(TOKENIZER, {"type": "object", "x-guidance": {"whitespace_flexible": True,
                                                                    "whitespace_pattern": "[ ]+"}}).begin()
    for byte in b"{ ":
        follower.push(byte_token := next(i for i in range(256) if TOKENIZER.token_bytes(i) == bytes([byte])))
    assert not follower.allowed()[byte_token]
