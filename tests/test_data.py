"""Where documents come from: the bundled corpus, stories with a known entropy, and files."""
import gzip
import itertools
import math
import os
import random
import statistics
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.sources import pydocs as corpus, documents as extract, stories

quick = settings(derandomize=True, deadline=None, max_examples=40)


# ---- corpus --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def documents():
    pytest.importorskip("pydoc_data.topics")
    return corpus.pydoc_corpus()


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
    expected = corpus.pydoc_corpus(tmp_path)
    assert [name for name, _ in expected[:3]] == ["module a", "module c.d", "module e.g.h"]
    walk = os.walk

    def shuffled(root):
        for folder, subfolders, files in walk(root):
            subfolders.reverse()
            files.reverse()
            yield folder, subfolders, files
    monkeypatch.setattr(corpus.os, "walk", shuffled)
    assert corpus.pydoc_corpus(tmp_path) == expected


def test_describe_corpus():
    line = corpus.describe_corpus([("a", "é" * 1_000_000), ("b", "b" * 500_000)])
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
    assert corpus.module_pieces(path) == [
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
    names = [name for name, _ in corpus.pydoc_corpus(tmp_path) if name.startswith("module")]
    assert names == ["module a", "module p"]


def test_corpus_without_the_language_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)   # makes the import fail
    with pytest.raises(FileNotFoundError, match="pydoc_data"):
        corpus.pydoc_corpus()


# ---- stories -------------------------------------------------------------------------------------

def test_stories_are_seeded_and_extend():
    assert stories.stories(30, seed=1)[:10] == stories.stories(10, seed=1) != stories.stories(10, seed=2)
    assert stories.stories(0, seed=1) == []
    with pytest.raises(ValueError, match="count"):
        stories.stories(-1, seed=0)


def test_entropy_and_length_agree_with_a_sample():
    sample = stories.stories(4000, seed=0)
    for exact, values in [(stories.entropy_bits(), [-stories.log2_probability(text) for text in sample]),
                          (stories.expected_bytes(), [len(text.encode()) for text in sample])]:
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.mean(values) - exact) < 4 * error
        assert 0 < error < 0.01 * exact
    assert 60 < stories.entropy_bits() < 110 and len(set(sample)) == len(sample)


def test_no_option_begins_another():
    """So every choice can be told from the text as soon as it is read: distinct choices, distinct texts."""
    for name, drawn in stories.STORY.tables.items():
        for options in drawn.choices.values():
            for one, other in itertools.combinations(options, 2):
                common = len(os.path.commonprefix([one, other]))
                first = one[common:common + 1], other[common:common + 1]
                assert all(first) and not set(first) & set("<{"), (name, one, other)
                assert not set(one[:common]) & set("<{"), (name, one, other)


def test_probability_is_that_of_the_choices_made():
    """Record each draw's probability while generating; reading the text must give their product."""
    class Recorder(random.Random):
        def choices(self, population, weights):
            chosen = super().choices(population, weights)
            self.bits += math.log2(weights[population.index(chosen[0])] / sum(weights))
            return chosen
    rng = Recorder(5)
    for _ in range(200):
        rng.bits = 0.0
        text = stories.STORY.generate(rng)
        assert stories.log2_probability(text) == pytest.approx(rng.bits, abs=1e-9)


def test_agreement_over_a_distance_is_checked():
    text = stories.stories(1, seed=3)[0]
    thing = text.split(" from ")[0].split()[-1]
    other = "ball" if thing != "ball" else "key"
    head, tail = text[:-60], text[-60:]
    assert thing in tail
    for wrong in (head + tail.replace(thing, other), text + " ", text[:-1], ""):
        with pytest.raises(ValueError, match="not a story"):
            stories.log2_probability(wrong)


SMALL = stories.Grammar("<who> has <gift>. <end>", {
    "who": stories.table("Ann|Bob|Cyd"),
    "she": stories.table_given("who", {"Ann": "she", "Bob": "he", "Cyd": "she|they"}),
    "gift": stories.table("a <colour> hat|ten <coin>"),
    "colour": stories.table_given("who", {"Ann": "red|blue", "Bob": "green", "Cyd": "red|green|white"}),
    "coin": stories.table("pennies|marks"),
    "end": stories.table("So <she> sings|{who} has nothing")})


def every_text(grammar, template, state):
    """All (text, probability, state) that `template` can write: the grammar once more, by brute force."""
    results = [("", 1.0, state)]
    for kind, value in grammar.tokens(template):
        grown = []
        for text, p, state in results:
            if kind != "draw":
                grown.append((text + (value if kind == "text" else state[value]), p, state))
                continue
            options = grammar.tables[value].options(state)
            for option, weight in options.items():
                for more, q, inner in every_text(grammar, option, {**state, value: option}):
                    grown.append((text + more, p * weight / sum(options.values()) * q, inner))
        results = grown
    return results


def test_a_small_grammar_exhaustively():
    texts = [(text, p) for text, p, _ in every_text(SMALL, SMALL.start, {})]
    assert len({text for text, _ in texts}) == len(texts) > 20
    assert sum(p for _, p in texts) == pytest.approx(1, abs=1e-12)
    for text, p in texts:
        assert SMALL.log2_probability(text) == pytest.approx(math.log2(p), abs=1e-12)
    bits, size = SMALL.expectations
    assert bits == pytest.approx(-sum(p * math.log2(p) for _, p in texts), abs=1e-12)
    assert size == pytest.approx(sum(p * len(text) for text, p in texts), abs=1e-12)


# ---- extract -------------------------------------------------------------------------------------

def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_folder_is_read_in_order_and_skips_are_counted(tmp_path):
    fill(tmp_path, {
        "b.txt": "bee", "a.md": "ay", "sub/c.py": "x = 1\r\ny = 2", "z.txt.gz": gzip.compress(b"zed"),
        "bom.txt": b"\xef\xbb\xbfbom", "wide.txt": "wide é".encode("utf-16"),
        ".hidden.txt": "no", ".git/d.txt": "no", "picture.png": b"\x89PNG", "empty.txt": " \n",
        "nul.txt": b"ab\0cd", "control.txt": b"\x01\x02\x03abc", "latin.txt": b"caf\xe9", "bad.txt.gz": b"no gzip"})
    os.symlink(tmp_path / "missing", tmp_path / "dangling.txt")
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    os.symlink(tmp_path / "b.txt", tmp_path / "twice.txt")
    report = extract.Report()
    documents = list(extract.read_documents(tmp_path, report))
    assert [(os.path.relpath(name, tmp_path), text) for name, text in documents] == [
        ("a.md", "ay"), ("b.txt", "bee"), ("bom.txt", "bom"), ("wide.txt", "wide é"), ("z.txt.gz", "zed"),
        ("sub/c.py", "x = 1\ny = 2")]
    assert report.skipped == {"of another kind": 1, "empty": 1, "binary": 2, "not UTF-8": 1, "unreadable": 2,
                              "already read under another name": 1}
    assert report.documents == 6 and report.bytes == sum(len(text.encode()) for _, text in documents)
    assert "6 documents" in str(report) and "skipped 8: 2 binary (" in str(report) and "control.txt" in str(report)


def test_jsonl_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "LONGEST_LINE", 100)
    lines = [b'{"text": "one"}', b'{"text": "two', b"", b'{"body": "three"}', b'{"text": 4}', b'["text"]',
             b'{"text": ""}', b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b"[" * 99_999,
             b'{"text": "' + b"x" * 250 + b'"}', b'{"text": "last"}']
    fill(tmp_path, {"a.jsonl": b"\n".join(lines), "b.jsonl.gz": gzip.compress(b'{"text": "zipped"}\n')})
    report = extract.Report()
    documents = list(extract.read_documents([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"], report))
    assert [(name.split("/")[-1], text) for name, text in documents] == [
        ("a.jsonl:1", "one"), ("a.jsonl:13", "last"), ("b.jsonl.gz:1", "zipped")]
    assert report.skipped == {"bad JSON": 1, "without a text field 'text'": 3, "empty": 1, "not UTF-8": 2, "binary": 1,
                              "line too long": 2}
    assert [text for _, text in extract.read_documents(tmp_path / "a.jsonl", field="body")] == ["three"]


def test_deep_json_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.jsonl": b"[" * 200_000 + b'\n{"text": "after"}'})
    report = extract.Report()
    assert [text for _, text in extract.read_documents(tmp_path, report)] == ["after"]
    assert report.skipped == {"bad JSON": 1}


@quick
@given(st.lists(st.sampled_from(["word", "a", " ", "\n", "\n\n", "é", "🙂"]), max_size=80).map("".join),
       st.integers(4, 20))
def test_pieces_join_to_the_text(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("pieces") / "big.txt"
    path.write_text(text + "end", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "PIECE_CHARACTERS", size)
        pieces = [piece for _, piece in extract.read_documents(path)]
    assert all(len(piece) <= 2 * size for piece in pieces)
    assert "".join(pieces).split() == (text + "end").split()


def test_a_big_text_file_is_cut_at_paragraphs_and_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "PIECE_CHARACTERS", 1000)
    paragraph = "A line of text.\nAnd another one.\n\n"
    path = fill(tmp_path, {"big.txt": paragraph * 200}) / "big.txt"
    documents = list(extract.read_documents(path))
    assert "".join(text for _, text in documents) == paragraph * 200
    assert len(documents) >= 6 and all(text.endswith("\n\n") for _, text in documents)
    assert [name for name, _ in documents[:2]] == [str(path), f"{path}#2"]


def test_explicit_files_missing_paths_and_nothing_usable(tmp_path):
    fill(tmp_path, {"notes.weird": "text all the same", "sub/x.png": b"x", "sub/e.txt": ""})
    assert [text for _, text in extract.read_documents([str(tmp_path / "notes.weird")])] == ["text all the same"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        extract.read_documents([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no usable text.*1 empty.*1 of another kind"):
        list(extract.read_documents(tmp_path / "sub"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.txt": "a", "secret.txt": "s"})
    (tmp_path / "secret.txt").chmod(0)
    report = extract.Report()
    assert len(list(extract.read_documents(tmp_path, report))) == 1 and report.skipped == {"unreadable": 1}
