"""The book: chapters in a small Markdown, a chapter for each op made of the op table, as PDF and as HTML.

In reading order:

    blocks.py        what a chapter is made of: headings, paragraphs, formulas, listings, ...
    markup.py        the text of a chapter -> blocks
    formula.py       formulas in plain notation, typeset and found in sentences (study/formulas does it)
    references.py    the bibliography
    derivation.py    the docstring of an op -> blocks
    listings.py      code with the line numbers of its file
    results.py       the newest committed measurements
    motivation.py    what calls an op, what it costs a training step
    check.py         the gradient check of an op, and the picture of error against step
    measurements.py  tables of how fast its kernels are; live.py measures again
    exercises.py     questions with answers, of `minillm learn` and of the op table
    op_chapter.py    a chapter for an op: derivation, code, check, kernels, exercises
    appendices.py    answers, code, references, index
    contents.py      the parts and their chapters, in order
    numbering.py     numbers of chapters, sections, equations, figures, tables, and where references lead
    index.py         the index, from marks in the text
    to_typst.py      blocks -> Typst, which makes the PDF
    to_html.py       blocks -> HTML, a page for each chapter
    build.py         the whole

chapters/ has the prose, figures/ and tables/ what is drawn and counted by the code itself, contents.txt the order.
"""
