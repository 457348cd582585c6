"""What a tokenizer does besides merging: added tokens, normalizer, prefix space, ignore_merges, and a template.

A template (BOS and EOS, or what a model puts around every text) is Hugging Face's post_processor. `encode` leaves it
out, as `tokenizers` does with add_special_tokens=False; Tokenizer.with_template puts it around ids.
"""
import json
from functools import cached_property
from typing import Any, NamedTuple

from .added import AddedToken
from .normalize import is_form, normalizer_of


class Rules(NamedTuple):
    """All of it is plain data, so that it can be compared, pickled and written.

    added            added tokens that are not special, or have options; other special tokens are found as they stand
    normalizer       JSON of Hugging Face's `normalizer`, or ""
    prefix_space     whether what begins without a space gets one
    ignore_merges    whether a word that is a token is that token, whatever the merges make of it
    before, after    ids that the template puts around a text
    post_processor   JSON of Hugging Face's `post_processor`, or ""
    """

    added: tuple[AddedToken, ...] = ()
    normalizer: str = ""
    prefix_space: bool = False
    ignore_merges: bool = False
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    post_processor: str = ""


NO_RULES = Rules()


class TextRules:
    """The rules about texts, ready for use: which added tokens there are, and what becomes of a text between them."""

    def __init__(self, rules: Rules, special_tokens: dict[str, int]):
        given = {token.text for token in rules.added}
        self.added = (*(AddedToken(*item) for item in special_tokens.items() if item[0] not in given), *rules.added)
        self.normalize = normalizer_of(json.loads(rules.normalizer)) if rules.normalizer else None
        self.is_form = is_form(json.loads(rules.normalizer)) if rules.normalizer else False
        self.prefix_space = rules.prefix_space

    @cached_property
    def plain(self) -> bool:
        """Whether added tokens are found wherever they stand, and nothing is put before a text."""
        return not self.prefix_space and not any(
            token.lstrip or token.rstrip or token.single_word for token in self.added)

    @property
    def simple(self) -> bool:
        """Whether added tokens are all that is special about a text, and are found as they stand."""
        return self.plain and not self.normalize

    def unchanged(self, text: str) -> bool:
        """Whether nothing but finding added tokens is to be done to this text, nor to any part of it."""
        return self.plain and (not self.normalize or self.is_form and self.normalize(text) == text)

    def late_text(self, token: AddedToken) -> str:
        """How a token is written where it is looked for."""
        return self.normalize(token.text) if self.normalize and token.normalized else token.text

    @cached_property
    def others(self) -> frozenset[str]:
        """The texts of added tokens that are not special."""
        return frozenset(token.text for token in self.added if not token.special)

    def prefixed(self, text: str) -> str:
        return " " + text if self.prefix_space and text[:1] != " " else text


Template = tuple[tuple[int, ...], tuple[int, ...]]


def template_of(description: Any) -> Template:
    """The ids that a post_processor puts before and behind one text. Raises ValueError naming what is not known."""
    kind = description.get("type") if isinstance(description, dict) else None
    if description is None or kind == "ByteLevel":
        return (), ()
    if kind == "Sequence" and isinstance(description.get("processors"), list):
        found = [template for step in description["processors"] if (template := template_of(step)) != ((), ())]
        if len(found) > 1:
            raise ValueError("post_processor has several templates: expected one")
        return found[0] if found else ((), ())
    if kind == "TemplateProcessing":
        return single_template(description)
    if kind in ("RobertaProcessing", "BertProcessing"):
        names = [description.get(name) for name in ("cls", "sep")]
        if all(isinstance(pair, list) and len(pair) == 2 and is_id(pair[1]) for pair in names):
            return (names[0][1],), (names[1][1],)
    raise ValueError(f"post_processor {kind or description!r:.80} is not known: expected TemplateProcessing, "
                     "RobertaProcessing, BertProcessing, ByteLevel, or a Sequence of them")


def single_template(description: dict) -> Template:
    """TemplateProcessing's `single`: special tokens, the text `A` once, special tokens."""
    pieces, specials = description.get("single"), description.get("special_tokens")
    if not isinstance(pieces, list) or not all(isinstance(piece, dict) and len(piece) == 1 for piece in pieces):
        raise ValueError(f"post_processor's single template must be a list of pieces: got {pieces!r:.80}")
    parts: list[list[int]] = [[]]
    for piece in pieces:
        (kind, value), = piece.items()
        if not isinstance(value, dict) or kind not in ("Sequence", "SpecialToken"):
            raise ValueError(f"post_processor's template has an unknown piece: {piece!r:.80}")
        if kind == "Sequence":
            parts.append([])
        else:
            special = specials.get(value.get("id")) if isinstance(specials, dict) else None
            found = special.get("ids") if isinstance(special, dict) else None
            if not isinstance(found, list) or not all(map(is_id, found)):
                raise ValueError(f"post_processor's special token {value.get('id')!r:.80} has no ids")
            parts[-1] += found
    if len(parts) != 2:
        raise ValueError("post_processor's single template must hold the text once")
    return tuple(parts[0]), tuple(parts[1])


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
