"""Documents of files and folders: order, pieces, JSON Lines, and a count of all that is skipped."""
import gzip
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.sources import plain_text
from minillm.data.sources.files import read_documents
from minillm.data.sources.report import Report


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
    report = Report()
    documents = list(read_documents(tmp_path, report))
    assert [(os.path.relpath(name, tmp_path), text) for name, text in documents] == [
        ("a.md", "ay"), ("b.txt", "bee"), ("bom.txt", "bom"), ("wide.txt", "wide é"), ("z.txt.gz", "zed"),
        ("sub/c.py", "x = 1\ny = 2")]
    assert report.skipped == {"of another kind": 1, "empty": 1, "binary": 2, "not UTF-8": 1, "unreadable": 2,
                              "already read under another name": 1}
    assert report.documents == 6 and report.bytes == sum(len(text.encode()) for _, text in documents)
    assert "6 documents" in str(report) and "skipped 8: 2 binary (" in str(report) and "control.txt" in str(report)


def test_jsonl_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text, "LONGEST_LINE", 100)
    lines = [b'{"text": "one"}', b'{"text": "two', b"", b'{"body": "three"}', b'{"text": 4}', b'["text"]',
             b'{"text": ""}', b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b"[" * 99_999,
             b'{"text": "' + b"x" * 250 + b'"}', b'{"text": "last"}']
    fill(tmp_path, {"a.jsonl": b"\n".join(lines), "b.jsonl.gz": gzip.compress(b'{"text": "zipped"}\n')})
    report = Report()
    documents = list(read_documents([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"], report))
    assert [(name.split("/")[-1], text) for name, text in documents] == [
        ("a.jsonl:1", "one"), ("a.jsonl:13", "last"), ("b.jsonl.gz:1", "zipped")]
    assert report.skipped == {"bad JSON": 1, "without a text field 'text'": 3, "empty": 1, "not UTF-8": 2, "binary": 1,
                              "line too long": 2}
    assert [text for _, text in read_documents(tmp_path / "a.jsonl", field="body")] == ["three"]


def test_deep_json_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.jsonl": b"[" * 200_000 + b'\n{"text": "after"}'})
    report = Report()
    assert [text for _, text in read_documents(tmp_path, report)] == ["after"]
    assert report.skipped == {"bad JSON": 1}


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["word", "a", " ", "\n", "\n\n", "é", "🙂"]), max_size=80).map("".join),
       st.integers(4, 20))
def test_pieces_join_to_the_text(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("pieces") / "big.txt"
    path.write_text(text + "end", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "PIECE_CHARACTERS", size)
        pieces = [piece for _, piece in read_documents(path)]
    assert all(len(piece) <= 2 * size for piece in pieces)
    assert "".join(pieces).split() == (text + "end").split()


def test_a_big_text_file_is_cut_at_paragraphs_and_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text, "PIECE_CHARACTERS", 1000)
    paragraph = "A line of text.\nAnd another one.\n\n"
    path = fill(tmp_path, {"big.txt": paragraph * 200}) / "big.txt"
    documents = list(read_documents(path))
    assert "".join(text for _, text in documents) == paragraph * 200
    assert len(documents) >= 6 and all(text.endswith("\n\n") for _, text in documents)
    assert [name for name, _ in documents[:2]] == [str(path), f"{path}#2"]


def test_explicit_files_missing_paths_and_nothing_usable(tmp_path):
    fill(tmp_path, {"notes.weird": "text all the same", "sub/x.png": b"x", "sub/e.txt": ""})
    assert [text for _, text in read_documents([str(tmp_path / "notes.weird")])] == ["text all the same"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_documents([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no usable text.*1 empty.*1 of another kind"):
        list(read_documents(tmp_path / "sub"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.txt": "a", "secret.txt": "s"})
    (tmp_path / "secret.txt").chmod(0)
    report = Report()
    assert len(list(read_documents(tmp_path, report))) == 1 and report.skipped == {"unreadable": 1}
