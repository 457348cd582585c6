"""Numbers, and where references lead; what leads nowhere is told, all at once."""
import pytest

from minillm.study.book.blocks import Chapter, Formula, Paragraph, Span, plain
from minillm.study.book.markup import inline, read_chapter
from minillm.study.book.numbering import Book, check_spans, number_chapters
from minillm.study.book.references import read_sources
from minillm.study.book.to_typst import Writer

ONE = "# One\n## First {#a}\n$$ x = 1 $$ {#e}\n### Below {#b}\n## Second {#c}\n? Why?\n! So.\n\n$$ y = 2 $$ {#f}\n"
TWO = "# Two\n| h |\n|---|\n| no caption |\n\n| h |\n|---|\n| c |\nTable: Words. {#t}\n"


def book(*texts, late=()):
    chapters = [read_chapter(f"chapter-{i}", text, lambda *_: [])._replace(part="theory")
                for i, text in enumerate(texts)]
    done, targets = number_chapters([*chapters, *late])
    return Book("t", "1", {}, done, targets, read_sources())


def test_numbers():
    made = book(ONE, TWO, late=[("appendices", lambda done: Chapter("z", inline(f"of {len(done)}"), []))])
    words = {label: target.words for label, target in made.targets.items()}
    assert words == {"chapter-0": "Chapter 1", "a": "Section 1.1", "e": "Equation (1.1)", "b": "Section 1.1.1",
                     "c": "Section 1.2", "exercise-1.1": "Exercise 1.1", "f": "Equation (1.2)",
                     "chapter-1": "Chapter 2", "t": "Table 2.1", "z": "Appendix A"}
    assert plain(made.chapters[2].title) == "of 2" and made.chapters[2].number == "A"


def test_a_label_is_given_once():
    with pytest.raises(ValueError, match="two places have the label 'a': in chapter-0 and in chapter-1"):
        book(ONE, ONE)


@pytest.mark.parametrize("text, words", [
    ("see {ref:nowhere}", "chapter-1: there is no label 'nowhere'"),
    ("- *in {ref:nowhere}*", "there is no label 'nowhere'"),
    ("| h |\n|---|\n| {cite:nobody2030} |", "there is no source 'nobody2030'"),
    ("? Why {ref:nowhere}?\n! So.", "there is no label 'nowhere'"),
    ("? Why?\n! So {cite:nobody2030}.", "there is no source 'nobody2030'"),
    ("by $x = (1$", "x = \\(1")])
def test_what_leads_nowhere(text, words):
    with pytest.raises(ValueError, match=words):
        check_spans(book(ONE, f"# Two\n{text}\n"))
    check_spans(book(ONE, TWO))


def test_an_equation_may_hold_words():
    made = book(ONE)
    formula = next(block for block in made.chapters[0].blocks if isinstance(block, Formula))
    assert formula == Formula([Span("math", "x = 1")], "e", "1.1")


def test_a_number_alone_does_not_end_a_page():
    """The number of an answer that begins with a list or with code stays with what follows."""
    writer, number = Writer(None, None, "answers"), Span("strong", [Span("text", "1.2")])
    assert "alone: true" in writer.paragraph(Paragraph([number], "answer-1.2"))
    assert "alone" not in writer.paragraph(Paragraph([number, Span("text", "Yes.")], "answer-1.2"))
