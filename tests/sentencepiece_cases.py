"""Small vocabularies of SentencePiece's kind, and what Hugging Face's `tokenizers` made of some texts with them.

`python -m tests.sentencepiece_cases` makes the file beside this one again; it needs `tokenizers`.
"""
import copy
import json
import pydoc_data.topics
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
BLANK = "\u2581"
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
FRONT = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": BLANK}, REPLACE]}
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
DECODERS = [{"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
BEGIN = {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]}
WORDS = "The cat sat on the mat, and the dog said: hello there, naïve café! 12 + 34 = 46; über 日本語 русский"
TEXTS = ["", " ", "  ", "a", " a", "Hello world", " Hello  world ", "the\nmat\n\n\n", "\t\tif x:", WORDS, "日本🙂ʘ\0",
         "🙂🙂", "▁the▁ ▁▁", "<h1>a  \nb<h1>", "<s>the", "the<s> cat</s> <s>", "<0x0A>", "qq<extra>q <extra>",
         "x" * 40, "thethethe", " " * 30,
         "e\u0301\u2028\u3000\r\n", "ab" * 30, "<extra><extra> <sep> a", "cats", "mats <unk>z", "A\u00a0B", "ʘʘ\nʘ"]
TRAINED_ON = [pydoc_data.topics.topics[name][:2500] for name in ("assert", "async", "for", "lambda", "with")]


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": split}


def added(id, content, special=True, **options):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, **flags, **options, "special": special}


def kinds(model):
    """{name: tokenizer.json}: Llama 2's, Gemma's, and Metaspace in its ways; no byte fallback; added tokens."""
    specials = [added(i, text) for i, text in enumerate(("<unk>", "<s>", "</s>"))]
    size = len(model["vocab"])
    plain = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": specials, "normalizer": None,
             "pre_tokenizer": None, "post_processor": BEGIN, "model": model,
             "decoder": {"type": "Sequence", "decoders": DECODERS}}
    few = {text: id for text, id in model["vocab"].items() if not text.startswith("<0x4")}
    few = {text: id for id, text in enumerate(few)}
    found = {
        "llama2": plain | {"normalizer": FRONT},
        "gemma": plain | {"normalizer": REPLACE, "pre_tokenizer": SPLIT,
                          "decoder": {"type": "Sequence", "decoders": DECODERS[:3]},
                          "added_tokens": [*specials, added(size, "  \n", False), added(size + 1, "<h1>", False)]},
        "always": plain | {"pre_tokenizer": metaspace("always", False)},
        "first": plain | {"pre_tokenizer": metaspace("first", False)},
        "split": plain | {"pre_tokenizer": metaspace("always", True), "decoder": metaspace("always", True)},
        "never": plain | {"pre_tokenizer": metaspace("never", True), "decoder": metaspace("never", True)},
        "unfused": plain | {"normalizer": FRONT, "model": model | {"byte_fallback": False, "fuse_unk": False}},
        "fused": plain | {"normalizer": FRONT, "model": model | {"byte_fallback": False}},
        "some bytes": plain | {"normalizer": FRONT, "model": model | {"vocab": few}},
        "silent": plain | {"normalizer": FRONT, "model": model | {"byte_fallback": False, "unk_token": None}},
        "whole": plain | {"pre_tokenizer": metaspace("always", True), "model": model | {"ignore_merges": True}},
        "added": plain | {"normalizer": FRONT, "added_tokens": [
            *specials, added(size, "<extra>", False, lstrip=True), added(size + 1, "<sep>", rstrip=True),
            added(size + 2, "cat", False, single_word=True), added(size + 3, "mat", False, normalized=True)]},
    }
    return copy.deepcopy(found)


def load():
    """({kind: tokenizer.json}, [(kind, text, ids, decoded)])"""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return kinds(content["model"]), [(kind, *case) for kind, cases in content["cases"].items() for case in cases]


def make():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    learner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner.train_from_iterator([*TRAINED_ON, WORDS * 3], trainers.BpeTrainer(vocab_size=700, special_tokens=names,
                                                                              show_progress=False))
    model = json.loads(learner.to_str())["model"]
    cases = {}
    for kind, document in kinds(model).items():
        theirs = Tokenizer.from_str(json.dumps(document))
        encoded = [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
        cases[kind] = [(text, found.ids, theirs.decode(found.ids, skip_special_tokens=False))
                       for text, found in zip(TEXTS, encoded)]
    lines = [json.dumps(kind) + ": [\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in found) + "]"
             for kind, found in cases.items()]
    model_text = json.dumps(model, ensure_ascii=False)
    FILE.write_text(f'{{"model": {model_text},\n"cases": {{{", ".join(lines)}}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    make()
