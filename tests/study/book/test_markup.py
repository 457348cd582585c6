"""The format of chapters: each mark is read as what it is, and what is none is told with the chapter's name."""
import pytest

from minillm.study.book.blocks import Box, Code, Exercise, Formula, Heading, Items, Paragraph, Span, Table, plain
from minillm.study.book.markup import curly, inline, read_chapter

TEXT = '''# A title
## Section {#here}
One *two* **three** `a*b` $x * y$ {ref:here} {cite:a1, b2}{index:word!sub}
goes on, [a link](https://example.org/a_b), {term:thing}, \\*star\\*.

- first
  goes on
- second

1. one
2. two

| a | b \\| c |
|---|---:|
| 1 | 2 |
Table: A *caption*. {#numbers}

```python
x = "{ref:not} $this$"

y = 1
```

$$ dx = dout * 2 $$ {#eq}

$$
a = 1 {#eq-a}
b = 2
$$
> Pitfall: never
> do it.

? Why?
! Because
  of it.
{code:minillm/ops/gelu.py:gelu_forward}
'''


def read(text=TEXT):
    return read_chapter("name", text, lambda kind, argument, caption: [Paragraph(inline(f"{kind} {argument}"))])


def test_every_block():
    chapter = read()
    kinds = [type(block) for block in chapter.blocks]
    assert plain(chapter.title) == "A title"
    assert kinds == [Heading, Paragraph, Items, Items, Table, Code, Formula, Formula, Formula, Box, Exercise, Paragraph]
    section, _, dots, numbers, table, code, equation, a, b, box, exercise, directive = chapter.blocks
    assert section.label == "here" and section.level == 2
    assert [plain(item) for item in dots.items] == ["first goes on", "second"] and not dots.numbered
    assert [plain(item) for item in numbers.items] == ["one", "two"] and numbers.numbered
    assert table.right == [False, True] and table.label == "numbers" and plain(table.caption) == "A caption."
    assert [[plain(cell) for cell in row] for row in table.rows] == [["a", "b | c"], ["1", "2"]]
    assert code == Code('x = "{ref:not} $this$"\n\ny = 1', "python")
    assert equation == Formula([Span("math", "dx = dout * 2")], "eq")
    assert (a.label, b.label) == ("eq-a", "") and b.spans == [Span("math", "b = 2")]
    assert box.title == "Pitfall" and plain(box.spans) == "never do it."
    assert plain(exercise.question) == "Why?" and plain(exercise.answer[0].spans) == "Because of it."
    assert plain(directive.spans) == "code minillm/ops/gelu.py:gelu_forward"


def test_every_span():
    spans = read().blocks[1].spans
    assert [span.kind for span in spans if span.kind != "text"] == [
        "emphasis", "strong", "code", "math", "ref", "cite", "index", "link", "emphasis", "index"]
    values = {span.kind: span.value for span in spans[:-4]}
    assert values["code"] == "a*b" and values["math"] == "x * y" and values["ref"] == "here"
    assert values["cite"] == ["a1", "b2"] and values["index"] == "word!sub"
    assert values["link"] == ([Span("text", "a link")], "https://example.org/a_b")
    assert plain(spans).endswith("*star*.")


@pytest.mark.parametrize("text, made", [
    ('say "yes" and \'no\'', "say “yes” and ‘no’"), ("it's", "it’s"), ('("a")', "(“a”)"), ('"*a*" b', "“*a*” b"),
    ('`"code"` $f"$', '`"code"` $f"$')])
def test_quotes(text, made):
    assert curly(text) == made


@pytest.mark.parametrize("change, words", [
    (("# A title", "A title"), "must begin with '# Title'"),
    (("## Section", "##### Section"), "a heading must begin"),
    (("! Because\n  of it.\n", ""), "a question needs an answer"),
    (("|---|---:|\n", ""), "a table needs a head"),
    (("| 1 | 2 |", "| 1 |"), "as many cells as its head"),
    (("y = 1\n```", "y = 1"), "is opened and not closed"),
    (("$$ dx = dout * 2 $$", "$$ dx = dout * 2"), "between $$ and $$")])
def test_what_is_not_in_the_format_is_told(change, words):
    with pytest.raises(ValueError, match="chapter name") as error:
        read(TEXT.replace(*change))
    assert words in str(error.value)
