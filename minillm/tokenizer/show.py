"""Show how a text splits into tokens: in colours on a terminal, with bars elsewhere."""
from collections.abc import Collection

from .bpe import Tokenizer

COLOURS = (153, 223, 157, 217, 189, 229)        # light backgrounds of the 256-colour palette, in turns
RESET = "\x1b[0m"


def inspect(tok: Tokenizer, text: str, allowed_special: Collection[str] | str = "all", colour: bool = False,
            ids: bool = False) -> str:
    """The text with its tokens marked, and a line of figures. ids: put each token's id behind it.

    A token that is no whole characters is shown as its bytes, \\xe4\\xb8; so are control characters but the newline.
    """
    found = tok.encode(text, allowed_special)
    parts = [paint(visible(tok.token_bytes(id)) + (f"({id})" if ids else ""), i if colour else None)
             for i, id in enumerate(found)]
    size = len(text.encode("utf-8", "replace"))
    ratio = f", {size / len(found):.2f} bytes per token" if found else ""
    slow = "; its pattern is cut by regex in Python: slow" if getattr(tok, "cutter", "cpp") == "regex" else ""
    return "".join(parts) + ("\n" if colour else "|\n") + f"{len(found):,} tokens, {size:,} bytes{ratio}{slow}"


def visible(token: bytes) -> str:
    """A token as printable text: escapes for what is no whole character or does not print."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token)
    return "".join(char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
                   for char in text)


def paint(text: str, number: int | None) -> str:
    """A token in its colour, line by line so that no colour runs to the edge; or with a bar before it."""
    if number is None:
        return "|" + text.replace("\n", "\\n\n")
    start = f"\x1b[30;48;5;{COLOURS[number % len(COLOURS)]}m"
    return "\n".join(f"{start}{line}{RESET}" if line else "" for line in text.replace("\n", "\u21b5\n").split("\n"))
