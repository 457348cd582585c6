"""tokenizer.json files of the kinds that people have, made with Hugging Face's `tokenizers` on local text.

    python tests/tokenizer_kinds.py    writes tests/tokenizer/kinds/: small ones, with the ids that `tokenizers` gives
"""
import json
import random
from pathlib import Path

from tokenizer_texts import ENGLISH, MIXED

FOLDER = Path(__file__).parent / "tokenizer" / "kinds"
COMMITTED = ("llama3", "smollm", "deepseek", "roberta")         # which among them have every feature

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
MARKS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
NFC = {"type": "NFC"}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def level(use_regex, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


DIGITS = {"type": "Digits", "individual_digits": True}
SPECIAL = [{"content": text, "special": True, "normalized": False} for text in ("<s>", "</s>", "<|end|>")]
TOOLS = [{"content": "<tool_call>", "special": False, "normalized": False},
         *({"content": text, "special": False, "normalized": True} for text in ("  ", "\u212b"))]
STRIPS = [{"content": "<mask>", "special": True, "lstrip": True}, {"content": "[A]", "special": True, "rstrip": True},
          {"content": "word", "special": False, "single_word": True, "normalized": True}]
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}

# name -> what differs from a plain byte-level BPE
KINDS = {
    "gpt2": {"pre_tokenizer": level(True)},
    "roberta": {"pre_tokenizer": level(True, prefix=True), "added": SPECIAL + STRIPS},
    "llama3": {"pre_tokenizer": sequence(split(CL100K), level(False)), "ignore_merges": True, "post_processor":
               {"type": "Sequence", "processors": [level(True, True), TEMPLATE]}},
    "qwen2": {"pre_tokenizer": sequence(split(CL100K.replace(r"\p{N}{1,3}", r"\p{N}")), level(False)),
              "normalizer": NFC, "added": SPECIAL + TOOLS},
    "qwen3.5": {"pre_tokenizer": sequence(split(MARKS), level(False)), "normalizer": NFC},
    "gpt4o": {"pre_tokenizer": sequence(split(O200K, "Removed", True), level(False))},
    "olmo": {"pre_tokenizer": level(True), "normalizer": NFC, "added": SPECIAL + TOOLS},
    "smollm": {"pre_tokenizer": sequence(DIGITS, level(True))},
    "deepseek": {"pre_tokenizer": sequence(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                                           split(DEEPSEEK), level(False)),
                 "normalizer": {"type": "Sequence", "normalizers": []}, "added": SPECIAL + TOOLS},
    "claude": {"pre_tokenizer": level(True), "normalizer": {"type": "NFKC"}},
    "merged": {"pre_tokenizer": sequence(split(r"\s+", "MergedWithNext"), split("[,.]", "MergedWithPrevious"),
                                         {"type": "Digits", "individual_digits": False}, level(False, prefix=True))},
}


def build(name, vocab_size=1000, text=ENGLISH[:100_000] + MIXED * 3):
    """The `tokenizers` tokenizer of a kind."""
    import tokenizers as hf
    kind = KINDS[name]
    plain = hf.Tokenizer(hf.models.BPE(ignore_merges=kind.get("ignore_merges", False)))
    document = json.loads(plain.to_str())
    document |= {"pre_tokenizer": kind["pre_tokenizer"], "normalizer": kind.get("normalizer"),
                 "decoder": level(True)}
    trained = hf.Tokenizer.from_str(json.dumps(document))
    trained.train_from_iterator([text], hf.trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet()))
    for token in kind.get("added", SPECIAL):
        trained.add_tokens([hf.AddedToken(**token)])
    document = json.loads(trained.to_str())
    if post := kind.get("post_processor"):
        document["post_processor"] = with_ids(post, trained.token_to_id("<s>"))
    if kind.get("ignore_merges"):               # words that no merge makes, as Llama 3 has, and a pair before its parts
        del document["model"]["merges"][600:]
        document["model"]["merges"].reverse()
    return hf.Tokenizer.from_str(json.dumps(document))


def with_ids(post_processor, bos):
    text = json.dumps(post_processor).replace('"special_tokens": {}', json.dumps(
        {"special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}}})[1:-1])
    return json.loads(text)


ODD = [*"aAB\xe9'12\xb3 \n\r\t.,!?(|)-_\u4e2d\u304b\u309b\u30fb\uff9e\u0627\u0301\u200d\u3000\x85\x00\x1f\u2028\u017f/",
       *"\u0663\u2167\u01c5\u02b0\u2160\u201e\u0e33\u212b\ufb01\xad\U0001f600\U00020000", "'s", "'S", "'ll", "'LL",
       "the", " of", "def ", "    ", "\n\n", "  \n", "<mask>", "[A]", "word", "<tool_call>", "</s>", "<|end|>",
       "E\u0301", "123"]


def odd_texts(count, seed=0):
    """Texts of what the patterns, the normalizers and the added tokens care about."""
    rng = random.Random(seed)
    return ["".join(rng.choices(ODD, k=rng.randint(0, 16))) for _ in range(count)]


def write():
    FOLDER.mkdir(exist_ok=True)
    for name in COMMITTED:
        theirs = build(name, 420, ENGLISH[:20_000] + MIXED * 3)
        texts = [MIXED, *odd_texts(40)]
        (FOLDER / f"{name}.json").write_text(json.dumps(json.loads(theirs.to_str()), separators=(",", ":")))
        expected = [[text, theirs.encode(text).ids] for text in texts]
        (FOLDER / f"{name}_ids.json").write_text(json.dumps(expected, separators=(",", ":")))


if __name__ == "__main__":
    write()
