"""What a tokenizer.json of SentencePiece's kind says beside its vocabulary; anything else in it is refused by name.

    normalizer       null, Prepend and Replace (Llama 2), Replace alone (Gemma)
    pre_tokenizer    null, Metaspace, or a Split at spaces that the normalizer has replaced already (Gemma)
    post_processor   null or TemplateProcessing: which tokens stand around a text
    decoder          Metaspace, or Replace, ByteFallback, Fuse and Strip in this order, each if need be
"""
from typing import Any, NamedTuple

from .formats import expect
from .rules import template_of

BLANK = "\u2581"                        # how the vocabulary writes a space
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
RESTORE = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
STEPS = (RESTORE, {"type": "ByteFallback"}, {"type": "Fuse"})


class Rules(NamedTuple):
    """How text becomes what is merged, and tokens become text."""

    normalizer: bool = False            # it writes BLANK for a space, before normalized added tokens are looked for
    prepend: bool = False               # and puts a BLANK in front of each piece between added tokens
    metaspace: str = ""                 # "always", "first" or "never": Metaspace does it, unless there is one already
    split: bool = False                 # a word begins at each BLANK
    bytes_back: bool = False            # <0x0A> is decoded as the byte
    strip: int = 0                      # so many spaces are left out where a decoded text begins
    first_bare: bool = False            # the first token is decoded without its BLANKs
    before: tuple[int, ...] = ()        # ids that stand before a text, and behind it
    after: tuple[int, ...] = ()

    @property
    def blanks(self) -> bool:
        return self.normalizer or bool(self.metaspace)


def is_sentencepiece(document: dict) -> bool:
    """Whether a tokenizer.json writes BLANK for a space, and so has characters for its alphabet, not bytes."""
    parts = repr([document.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")])
    return BLANK in parts and "'ByteLevel'" not in parts


def read_rules(document: dict) -> Rules:
    """Raises ValueError naming a part that would change ids or text and is not known here."""
    model = expect(document.get("model"), dict, "model")
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"model.type must be BPE: got {model['type']!r}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"model.{name} is not supported: got {model[name]!r}")
    rules = Rules(**read_normalizer(document.get("normalizer")))
    rules = rules._replace(**read_pre_tokenizer(document.get("pre_tokenizer"), rules.normalizer))
    before, after = template_of(document.get("post_processor"))
    return rules._replace(**read_decoder(document.get("decoder")), before=before, after=after)


def steps_of(part: Any, name: str, inside: str) -> list[dict]:
    """The steps of a part, which may be one, a Sequence of them, or none."""
    steps = [] if part is None else [part]
    if isinstance(part, dict) and part.get("type") == "Sequence":
        steps = expect(part.get(inside), list, f"{name}.{inside}")
    return [expect(step, dict, name) for step in steps]


def refuse(name: str, step: Any) -> ValueError:
    return ValueError(f"{name} is not supported: {step!r:.200}")


def read_normalizer(part: Any) -> dict[str, Any]:
    found = {"normalizer": False, "prepend": False}
    for step in steps_of(part, "normalizer", "normalizers"):
        if step == {"type": "Prepend", "prepend": BLANK} and not any(found.values()):
            found["prepend"] = True
        elif step == REPLACE and not found["normalizer"]:
            found["normalizer"] = True
        else:
            raise refuse("normalizer", step)
    if found["prepend"] and not found["normalizer"]:
        raise refuse("normalizer", part)
    return found


def read_pre_tokenizer(part: Any, replaced: bool) -> dict[str, Any]:
    for step in (steps := steps_of(part, "pre_tokenizer", "pretokenizers")):
        if step.get("type") == "Metaspace" and len(steps) == 1 and step.get("replacement") == BLANK:
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            if scheme in ("always", "first", "never"):
                return {"metaspace": scheme, "split": expect(step.get("split", True), bool, "pre_tokenizer.split")}
        if step != NO_SPLIT or not replaced:
            raise refuse("pre_tokenizer", step)
    return {}


def read_decoder(part: Any) -> dict[str, Any]:
    steps = steps_of(part, "decoder", "decoders")
    found: dict[str, Any] = {"bytes_back": {"type": "ByteFallback"} in steps}
    if steps and steps[-1].get("type") == "Metaspace" and steps[-1].get("replacement") == BLANK:
        scheme = steps[-1].get("prepend_scheme", "always" if steps[-1].get("add_prefix_space", True) else "never")
        found["first_bare"] = scheme != "never"
        steps = [RESTORE, *steps[:-1]]
    if steps and steps[-1].get("type") == "Strip" and steps[-1].get("content") == " " and not steps[-1].get("stop"):
        found["strip"] = expect(steps[-1].get("start"), int, "decoder.start")
        if {"type": "Fuse"} not in steps:
            raise refuse("decoder", part)
        steps = steps[:-1]
    if steps != [step for step in STEPS if step in steps] or RESTORE not in steps:
        raise refuse("decoder", part)
    return found
