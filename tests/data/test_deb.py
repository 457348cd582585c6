"""Debian packages: the documentation, not the changelogs, with its licences; what is damaged is skipped."""
import gzip
import io
import lzma
import tarfile

import pytest

from minillm.data.sources import containers
from minillm.data.sources.files import read_records
from minillm.data.sources.report import Report

DOC = "./usr/share/doc/tool/"
COPYRIGHT = (b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\n"
             b"License: GPL-2+\n text\n\nFiles: doc/*\nLicense: Expat\n\nLicense: GPL-2+\n more\n")
FILES = {DOC + "guide.txt": b"A guide.\n", DOC + "README": b"Read me.\n",
         DOC + "notes.md.gz": gzip.compress(b"Notes.\n"),
         DOC + "changelog.gz": gzip.compress(b"tool (1.0)\n"), DOC + "picture.png": b"\x89PNG\0",
         "./usr/bin/tool.txt": b"no documentation", DOC + "latin.txt": b"caf\xe9\n", DOC + "copyright": COPYRIGHT}


def ar(**members):
    """An `ar` archive, as dpkg-deb writes it."""
    data = b"!<arch>\n"
    for name, content in members.items():
        head = f"{name.replace('_', '.'):<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        data += head.encode() + content + b"\n" * (len(content) % 2)
    return data


def tar(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(DOC + "link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return raw.getvalue()


def package(files=FILES, compress=lzma.compress, suffix="xz"):
    return ar(**{"debian-binary": b"2.0\n", "control_tar_xz": lzma.compress(tar({})),
                 "data_tar" + "_" * bool(suffix) + suffix: compress(tar(files))})


def read(path):
    report = Report()
    try:
        return list(read_records([path], report)), report
    except ValueError:
        return [], report


@pytest.mark.parametrize("compress, suffix", [(lzma.compress, "xz"), (gzip.compress, "gz"), (bytes, "")])
def test_prose_and_its_licences(tmp_path, compress, suffix):
    (tmp_path / "tool_1.0_all.deb").write_bytes(package(compress=compress, suffix=suffix))
    records, report = read(tmp_path)
    assert {name.rpartition("/")[2]: text for name, text, _ in records} == {
        "guide.txt": "A guide.\n", "README": "Read me.\n", "notes.md.gz": "Notes.\n"}
    assert {record["license"] for _, _, record in records} == {"Expat, GPL-2+"}
    assert report.skipped == {"not UTF-8": 1} and "latin.txt" in report.examples["not UTF-8"][0]


def test_zstd(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "tool.deb").write_bytes(package(compress=zstandard.compress, suffix="zst"))
    assert len(read(tmp_path)[0]) == 3


def test_a_page_by_its_main_text(tmp_path):
    pytest.importorskip("resiliparse")
    page = b"<html><body><nav>menu</nav><p>" + b"One sentence of prose. " * 20 + b"</p></body></html>"
    (tmp_path / "tool.deb").write_bytes(package({DOC + "html/index.html": page}))
    (_, text, record), = read(tmp_path)[0]
    assert text.startswith("One sentence") and "menu" not in text and record["license"].startswith("see the package's")


WHOLE = package()


@pytest.mark.parametrize("data", [b"", b"!<arch>\n", b"not a package" * 20, WHOLE[:len(WHOLE) // 2], WHOLE[:-40],
                                  WHOLE.replace(b"data.tar.xz", b"data.tar.7z"), ar(data_tar_xz=b"no tar at all"),
                                  ar(data_tar=b"x" * 2000)], ids=range(8))
def test_what_is_damaged_is_skipped_and_said(tmp_path, data):
    (tmp_path / "tool.deb").write_bytes(data)
    _, report = read(tmp_path)
    assert "unreadable" in report.skipped, report


def test_a_bomb_in_a_package_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LEAST", 2 ** 20)
    (tmp_path / "outer.deb").write_bytes(package({DOC + "a.txt": bytes(2 ** 23) + b"!"}))
    (tmp_path / "inner.deb").write_bytes(package({DOC + "a.txt.gz": gzip.compress(b"words " * 2 ** 20)}))
    found, report = read(tmp_path)
    assert not found and report.skipped == {containers.BOMB: 2}
