"""What each merge of byte-pair encoding buys: bytes of text a token, on text that it learned from and on other text."""
from pathlib import Path

from ....data.sources.stories import stories
from ....tokenizer import Tokenizer
from .svg import Axes, svg

SIZES = (256, 288, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
CHAPTERS = Path(__file__).parents[1] / "chapters"


def texts() -> dict[str, tuple[str, str]]:
    """{name: (to learn from, held out)}: the stories, and the prose of this book itself."""
    book = "\n".join(path.read_text(encoding="utf-8") for path in sorted(CHAPTERS.glob("*.md")))
    cut = len(book) * 4 // 5
    return {"stories": ("\n".join(stories(400, 1)), "\n".join(stories(100, 2))), "this book": (book[:cut], book[cut:])}


def bytes_per_token(learned: str, held_out: str) -> list[tuple[int, float, float]]:
    """(vocabulary, bytes a token of the learned text, of the other) for growing vocabularies."""
    found: list[tuple[int, float, float]] = []
    for size in SIZES:
        tokenizer = Tokenizer.train([learned], vocab_size=size, special_tokens=[], stop_early=True)
        if found and tokenizer.vocab_size == found[-1][0]:
            break
        first, second = (len(text.encode()) / len(tokenizer.encode(text)) for text in (learned, held_out))
        found.append((tokenizer.vocab_size, first, second))
    return found


def draw() -> str:
    axes = Axes((240, 4400), (0.8, 6.4), "x", (52, 12, 350, 180))
    axes.frame("vocabulary", "bytes a token", xticks=[256, 512, 1024, 2048, 4096])
    for n, (name, pair) in enumerate(texts().items()):
        sizes, learned, held_out = zip(*bytes_per_token(*pair))
        axes.line(sizes, learned, 2 * n, dash="").line(sizes, held_out, 2 * n, dash="4 2")
        axes.points(sizes, held_out, 2 * n)
        axes.write(sizes[-1], held_out[-1], name, 2 * n, "end", dx=-4, dy=16)
    axes.write(300, 5.8, "solid: learned from; dashed with dots: held out")
    return svg(__doc__ or "", 228, str(axes))
