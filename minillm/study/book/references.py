"""The bibliography, read from references.toml: one table a source, by the key that a citation names."""
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .blocks import Paragraph, Span, Spans

FILE = Path(__file__).with_name("references.toml")
ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")


class Source(NamedTuple):
    """authors: surnames with commas, of more than three the first and "others"; where: journal, arXiv number, ..."""
    authors: str
    year: int
    title: str
    arxiv: str = ""
    doi: str = ""
    where: str = ""

    def short(self) -> str:
        """Vaswani et al. 2017"""
        names = self.authors.split(", ")
        if len(names) > 2 or names[-1] == "others":
            return f"{names[0]} et al. {self.year}"
        return f"{' and '.join(names)} {self.year}"

    def address(self) -> str:
        """A link, or ""."""
        doi = f"https://doi.org/{self.doi}" if self.doi else ""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else doi


@cache
def read_sources() -> dict[str, Source]:
    """{key: source}, in the order of the bibliography."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    sources = {key: Source(**table) for key, table in tables.items()}
    return dict(sorted(sources.items(), key=lambda item: (item[1].authors.lower(), item[1].year, item[0])))


@cache
def by_arxiv() -> dict[str, str]:
    """{arXiv number: key}."""
    return {source.arxiv: key for key, source in read_sources().items() if source.arxiv}


def entry(key: str, source: Source) -> Paragraph:
    """A source in the bibliography."""
    authors = source.authors.replace(", others", " et al.")
    spans: Spans = [Span("text", f"{authors} ({source.year}). "), Span("emphasis", [Span("text", source.title)]),
                    Span("text", ". ")]
    place = f"arXiv {source.arxiv}" if source.arxiv else f"doi {source.doi}" if source.doi else ""
    if source.where:
        spans.append(Span("text", source.where + (", " if place else ".")))
    if place:
        spans += [Span("link", ([Span("text", place)], source.address())), Span("text", ".")]
    return Paragraph(spans, f"source-{key}")
