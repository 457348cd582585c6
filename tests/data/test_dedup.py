"""Deduplication keeps what brute force keeps, whatever the order, the threads and the memory."""
import itertools
import json
import random

import numpy as np
import pytest
from duplicates import corpus, edited, run, text_of, write_jsonl

from minillm.data.dedup import external_sort, minhash, pipeline
from minillm.data.dedup.pipeline import dedup
from minillm.data.dedup.report import EXCERPT
from minillm.data.dedup.table import DedupOptions


def brute_force(records, threshold, ngram=3):
    """Ids to keep, by comparing all pairs: clusters of equal or similar texts, the longest of each."""
    sets = [set(minhash.shingles(record["text"], ngram).tolist()) for record in records]
    parents = np.arange(len(records))
    pairs = [(i, j) for i, j in itertools.combinations(range(len(records)), 2)
             if records[i]["text"].split() == records[j]["text"].split()
             or sets[i] and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])]
    parents = minhash.united(parents, np.array(pairs))
    longest = {}
    for root, record in zip(parents.tolist(), records):
        longest[root] = max(longest.get(root, 0), len(record["text"].encode()))
    return parents, longest


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_keeps_what_brute_force_keeps(tmp_path, threshold):
    records = corpus()
    kept, report = run(tmp_path, records, threshold=threshold)
    parents, longest = brute_force(records, threshold)
    survivors = [(root, record) for root, record in zip(parents.tolist(), records) if record["id"] in kept]
    assert sorted(root for root, _ in survivors) == sorted(longest)                    # one of each cluster
    for root, record in survivors:
        assert len(record["text"].encode()) == longest[root] and kept[record["id"]] == record
    sizes = np.bincount(np.bincount(parents))
    assert report["clusters"] == {str(n): int(sizes[n]) for n in range(2, len(sizes)) if sizes[n]}
    dropped = sum(size["documents"] for size in report["dropped"].values())
    assert report["read"]["documents"] == len(records) == len(kept) + dropped
    exact = len(records) - len({tuple(record["text"].split()) for record in records})
    assert report["dropped"]["exact duplicate"]["documents"] == exact


def test_order_threads_and_memory_change_nothing(tmp_path, monkeypatch):
    records = corpus(1)
    records += [{"text": records[0]["text"], "id": 1000 + n} for n in range(3)]        # equal in text, not in the rest
    expected = None
    for number, (threads, files, spill) in enumerate([(1, 1, False), (2, 3, False), (3, 5, True)]):
        random.Random(number).shuffle(records)
        monkeypatch.setattr(external_sort, "LEAST", 1000 if spill else 4096)
        monkeypatch.setattr(external_sort, "RECORD", 2**40 if spill else 64)
        monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 7 if spill else 2**14)
        monkeypatch.setattr(pipeline, "PAIRS", 300 if spill else 2**16)
        (tmp_path / str(number)).mkdir()
        kept, report = run(tmp_path / str(number), records, files, threads=threads, lines=3, threshold=0.7)
        report = {key: value for key, value in report.items() if key not in ("examples", "input")}
        assert (kept, report) == (expected := expected or (kept, report))


def test_python_gives_the_same(tmp_path, monkeypatch):
    records = corpus(2)
    (tmp_path / "cpp").mkdir(), (tmp_path / "python").mkdir()
    fast = run(tmp_path / "cpp", records)
    monkeypatch.setattr(minhash, "load_core", lambda backend="auto": None)
    assert run(tmp_path / "python", records)[0] == fast[0]


def test_recall_and_precision(tmp_path):
    """Against the S-curve, pair by pair, and no false one after verification; without it false ones are there."""
    rng, lsh = random.Random(3), minhash.choose(0.7, 64, ngram=1)
    records, curve, similar = [], 0.0, 0
    for pair in range(600):
        words = [f"p{pair}w{i}" for i in range(60)]
        swapped = rng.randint(2, 30)
        other = [f"q{pair}w{i}" for i in range(swapped)] + words[swapped:]
        similarity = (60 - swapped) / (60 + swapped)
        curve += float(lsh.found(similarity)) * (similarity >= 0.7)
        similar += similarity >= 0.7
        records += [{"id": 2 * pair, "text": " ".join(words)}, {"id": 2 * pair + 1, "text": " ".join(other)}]
    _, report = run(tmp_path, records, lsh=lsh, threshold=0.7)
    found = report["dropped"]["near-duplicate"]["documents"]
    assert abs(found - curve) < 5 * np.sqrt(similar) / 2 and found <= similar         # binomial, 5 sigma at most
    _, loose = run(tmp_path, records, lsh=lsh, threshold=0.7, verify=False)
    assert loose["dropped"]["near-duplicate"]["documents"] > found
    assert report["pairs"]["candidates"] == loose["pairs"]["similar"] > report["pairs"]["similar"] == found


def test_the_default_is_derived():
    assert DedupOptions().lsh == minhash.choose(0.8, miss_weight=minhash.MISS_WEIGHT)
    assert DedupOptions().threshold == 0.8


def test_a_large_bucket_stays_cheap_and_whole(tmp_path):
    """Of m documents in one bucket not all m^2 / 2 pairs are looked at, and all are found to be one."""
    rng = random.Random(4)
    base = text_of(rng, 200)
    records = [{"id": n, "text": edited(rng, base, 1)} for n in range(300)]
    kept, report = run(tmp_path, records, lsh=minhash.Lsh(8, 1, ngram=1), threshold=0.8)
    assert len(kept) == 1 and report["clusters"] == {"300": 1}
    assert report["pairs"]["candidates"] <= 8 * 9 * 300


def test_lines_that_stand_everywhere(tmp_path):
    rng = random.Random(5)
    menu = "Home | About us | Contact | Terms of service"
    records = [{"id": n, "text": f"{text_of(rng, 40)}\n{menu}\n{text_of(rng, 40)}\nbye", "url": n} for n in range(6)]
    records.append({"id": 6, "text": f"{menu}\n   {menu}"})
    kept, report = run(tmp_path, records, lines=5)
    assert sorted(kept) == [0, 1, 2, 3, 4, 5] and report["dropped"]["only repeated lines"]["documents"] == 1
    for record in records[:6]:
        found = kept[record["id"]]
        assert found["text"] == record["text"].replace(menu + "\n", "") and found["url"] == record["id"]
    assert len(run(tmp_path, records, lines=7)[0]) == 7                                # not in more than 7 documents
    copies = [{"id": n, "text": menu + " and more"} for n in range(9)]
    assert len(run(tmp_path, copies, lines=5)[0]) == 1                                 # copies are one document


def test_records_come_out_as_they_went_in(tmp_path):
    records = [{"id": 1, "text": "naïve “text” 你好", "other": [1.5, None, {"x": "é"}], "nan": "\u2028"},
               {"id": 2, "title": "\ud800", "text": "beside half a surrogate pair"}, {"text": "last", "id": 3}]
    kept, _ = run(tmp_path, records)
    assert kept == {record["id"]: record for record in records} and [list(record) for record in kept.values()] == [
        list(record) for record in records]


def test_examples_show_the_kept_one_first(tmp_path):
    _, report = run(tmp_path, corpus(6))
    assert report["examples"]
    for cluster in report["examples"]:
        lengths = [len(member["text"]) for member in cluster["members"]]
        assert 2 <= len(lengths) <= cluster["documents"] and max(lengths) == lengths[0] <= EXCERPT
        assert all("part0.jsonl:" in member["name"] for member in cluster["members"])


def first_copies(texts, characters):
    """CCNet's rule in the plainest way: a line that was there before goes; a text without a line left, too."""
    seen, kept = set(), []
    for text in texts:
        lines = []
        for line in text.split("\n"):
            if len(line.strip()) < max(1, characters) or line.strip() not in seen:
                lines.append(line)
            seen.add(line.strip())
        kept += ["\n".join(lines)] if "".join(lines).strip() else []
    return kept


@pytest.mark.parametrize("characters", [0, 12])
def test_of_a_line_the_first_copy_in_the_corpus_stays(tmp_path, monkeypatch, characters):
    rng = random.Random(6)
    lines = [text_of(rng, rng.randint(1, 6)) for _ in range(60)] + ["", "  ", "}"]
    texts = ["\n".join([*rng.choices(lines, k=rng.randint(1, 9)), f"number {n}"]) for n in range(40)]
    records = [{"id": n, "text": text} for n, text in enumerate(texts)]
    records.append({"id": 40, "text": records[0]["text"].split("\n")[0] + "\nnumber 3"})
    expected = first_copies([record["text"] for record in records], characters)
    for spill in (False, True):
        monkeypatch.setattr(external_sort, "LEAST", 10 if spill else 4096)
        monkeypatch.setattr(external_sort, "RECORD", 2**40 if spill else 64)
        monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 7 if spill else 2**14)
        folder = tmp_path / str(spill)
        folder.mkdir()
        kept, report = run(folder, records, lsh=None, line_dedup=True, line_characters=characters)
        assert [record["text"] for record in kept.values()] == expected
        assert report["dropped"]["only repeated lines"]["documents"] == len(records) - len(expected)


def test_what_is_written_is_json(tmp_path):
    """NaN and infinities become null, and newlines one character."""
    records = [{"id": 1, "text": "one\r\ntwo\rthree", "score": float("nan")},
               {"id": 2, "text": "x", "score": [1e5], "half": "\ud800"}]
    folder = write_jsonl(tmp_path / "in", records)
    with open(folder / "part1.jsonl", "w") as file:
        file.write('{"id": 3, "text": "large", "score": [1e999, -Infinity]}\n')
    dedup([folder], tmp_path / "out.jsonl", DedupOptions())

    def no_constant(name):
        raise AssertionError(name)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=no_constant) for line in lines] == [
        {"id": 1, "text": "one\ntwo\nthree", "score": None},
        {"id": 2, "text": "x", "score": [1e5], "half": "\ud800"}, {"id": 3, "text": "large", "score": [None, None]}]
