"""The bundled corpus of Python's documentation: clean, sorted, distinct, whatever the installation's files."""
import os
import sys

import pytest

from minillm.data.sources import pydocs


@pytest.fixture(scope="module")
def documents():
    pytest.importorskip("pydoc_data.topics")
    return pydocs.pydoc_corpus()


def test_corpus_is_large_sorted_clean_and_distinct(documents):
    names, texts = zip(*documents)
    assert sum(len(text.encode()) for text in texts) > 1.5e6
    assert list(names) == sorted(names) and len(set(names)) == len(names) and len(set(texts)) == len(texts)
    assert {"topic while", "module argparse"} <= set(names)
    for text in texts:
        assert text == text.strip() != "" and "\r" not in text and "\t" not in text and "\n\n\n" not in text


def test_corpus_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    pytest.importorskip("pydoc_data.topics")
    twins = {"a.py": 1, "b.py": 1, "c/d.py": 2, "e/f.py": 2, "e/g/h.py": 3}      # of one text the first is to stay
    for name, text in twins.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'"""This is the docstring of module number {text}."""')
    expected = pydocs.pydoc_corpus(tmp_path)
    assert [name for name, _ in expected[:3]] == ["module a", "module c.d", "module e.g.h"]
    walk = os.walk

    def shuffled(root):
        for folder, subfolders, files in walk(root):
            subfolders.reverse()
            files.reverse()
            yield folder, subfolders, files
    monkeypatch.setattr(pydocs.os, "walk", shuffled)
    assert pydocs.pydoc_corpus(tmp_path) == expected


def test_describe_corpus():
    line = pydocs.describe_corpus([("a", "é" * 1_000_000), ("b", "b" * 500_000)])
    assert line.startswith(f"2 documents, 2.5 MB: Python {sys.version.split()[0]}'s language reference")


SOURCE = '''"""The module's own docstring,

  with an  indented line."""
# A comment of two lines that says in plain words
# what the function below it is good for.
def f(x):
    """Return the argument, which is here only because of its docstring."""
    # x = compute_something(x)
    # return x + offset_of(x)
    text = """
    # not a comment but the inside of a string,
    # although it looks like one at first sight
    """
    return x
class C:
    """Small."""
    def method(self):
        """Return the argument, which is here only because of its docstring."""
'''


def test_module_pieces(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    function = "Return the argument, which is here only because of its docstring."
    assert pydocs.module_pieces(path) == [
        "The module's own docstring,\n\nwith an  indented line.",
        "A comment of two lines that says in plain words\nwhat the function below it is good for.", function, function]


def test_corpus_passes_over_bad_files_tests_and_repeats(tmp_path):
    pytest.importorskip("pydoc_data.topics")
    for name, content in {"a.py": SOURCE.encode(), "b.py": SOURCE.encode(), "broken.py": b"def (",
                          "latin.py": b"'\xff'", "nul.py": b"\0",
                          "test/c.py": SOURCE.encode().replace(b"own", b"other"),
                          "p/__init__.py": b'"""A package is a module as well, and it has a docstring."""'}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    names = [name for name, _ in pydocs.pydoc_corpus(tmp_path) if name.startswith("module")]
    assert names == ["module a", "module p"]


def test_corpus_without_the_language_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)   # makes the import fail
    with pytest.raises(FileNotFoundError, match="pydoc_data"):
        pydocs.pydoc_corpus()


def test_pages_of_help_under_all_their_names():
    """Raw text with real duplicates: many names lead to one page; a line of related topics makes near-duplicates."""
    pytest.importorskip("pydoc_data.topics")
    pages = dict(pydocs.help_pages())
    assert len(pages) > 100 and list(pages) == sorted(pages)
    assert pages["help for"].startswith('The "for" statement') and pages["help and"] != pages["help for"]
    assert pages["help and"].startswith(pages["help BOOLEAN"].partition("\n\nRelated help topics: ")[0])
    assert pages["help MAPPINGS"] == pages["help DICTIONARIES"]
    assert len(set(pages.values())) < 0.8 * len(pages) and not {"help None", "help True"} & pages.keys()
