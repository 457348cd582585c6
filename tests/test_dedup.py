"""Deduplication: against brute force, whatever the order, the threads and the memory; and what may go wrong on the way."""
import itertools
import json
import random
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.__main__ import main
from minillm.data.dedup import dedup, stages as duplicates, external_sort as external, minhash
from minillm.data.dedup.stages import Options

WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product("bdfgklmn", "aeiou", ["r", "st", "nd", "x", ""])]
EVERY_PAIR = minhash.Lsh(bands=64, rows=1, ngram=3)         # finds nearly all pairs above a similarity of 0.1


def text_of(rng, words):
    return " ".join(rng.choices(WORDS, k=words))


def edited(rng, text, words):
    changed = text.split()
    for place in rng.sample(range(len(changed)), words):
        changed[place] = f"new{rng.randrange(10**6)}"
    return " ".join(changed)


def corpus(seed=0, originals=60):
    """Records with copies, copies in other white space, near copies of 1 to 12 changed words, chains of them."""
    rng = random.Random(seed)
    texts = [text_of(rng, rng.randint(60, 120)) for _ in range(originals)]
    texts += [texts[i] for i in range(8)] + [texts[i].replace(" ", "\n ") for i in range(4, 12)]
    texts += [edited(rng, texts[i], rng.randint(1, 12)) for i in range(12, 40)]
    for _ in range(5):
        texts.append(edited(rng, texts[-1], 2))
    texts += ["?!", "? !", "?!", "short", "Short.", "two words"]
    records = [{"text": text, "id": number, "meta": {"of": seed}} for number, text in enumerate(texts)]
    rng.shuffle(records)
    return records


def write_jsonl(folder, records, files=1):
    folder.mkdir(exist_ok=True)
    for number in range(files):
        lines = [json.dumps(record) + "\n" for record in records[number::files]]
        (folder / f"part{number}.jsonl").write_text("".join(lines))
    return folder


def run(folder, records, files=1, **options):
    """(kept records by id, report)."""
    inputs = write_jsonl(folder / "in", records, files)
    report = dedup.dedup([inputs], folder / "out.jsonl", Options(**{"lsh": EVERY_PAIR, "threads": 2} | options))
    kept = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out.jsonl", "out.report.json"]
    assert json.loads((folder / "out.report.json").read_text()) == json.loads(json.dumps(report))
    return {record["id"]: record for record in kept}, report


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
        monkeypatch.setattr(external, "LEAST", 1000 if spill else 4096)
        monkeypatch.setattr(external, "RECORD", 2**40 if spill else 64)
        monkeypatch.setattr(dedup, "BATCH_DOCUMENTS", 7 if spill else 2**14)
        monkeypatch.setattr(dedup, "PAIRS", 300 if spill else 2**16)
        (tmp_path / str(number)).mkdir()
        kept, report = run(tmp_path / str(number), records, files, threads=threads, lines=3, threshold=0.7)
        report = {key: value for key, value in report.items() if key not in ("examples", "input")}
        assert (kept, report) == (expected := expected or (kept, report))


def test_python_gives_the_same(tmp_path, monkeypatch):
    records = corpus(2)
    (tmp_path / "cpp").mkdir(), (tmp_path / "python").mkdir()
    fast = run(tmp_path / "cpp", records)
    monkeypatch.setattr(minhash, "load", lambda backend="auto": None)
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
    assert Options().lsh == minhash.choose(0.8, miss_weight=minhash.MISS_WEIGHT) and Options().threshold == 0.8


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
        assert kept[record["id"]]["text"] == record["text"].replace(menu + "\n", "") and kept[record["id"]]["url"] == record["id"]
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
        assert 2 <= len(lengths) <= cluster["documents"] and max(lengths) == lengths[0] <= duplicates.EXCERPT
        assert all("part0.jsonl:" in member["name"] for member in cluster["members"])


# ---- sorting

@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 50), max_size=400), st.integers(1, 60))
def test_external_sort_sorts(tmp_path_factory, keys, most):
    folder = tmp_path_factory.mktemp("sort")
    sort = external.ExternalSort(folder, "s", 0)
    sort.most = most
    keys, values = np.array(keys, np.uint64), np.arange(len(keys), dtype=np.uint64)[::-1].copy()
    for start in range(0, len(keys), 37):
        sort.add(keys[start:start + 37], values[start:start + 37])
    ranges = list(sort.ranges())
    ends = [(part[0], part[-1]) for part, _ in ranges]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
    if len(keys):
        order = np.lexsort((values, keys))
        assert np.array_equal(np.concatenate([part for part, _ in ranges]), keys[order])
        assert np.array_equal(np.concatenate([part for _, part in ranges]), values[order])
    assert list(folder.iterdir()) == []


# ---- what may go wrong

@pytest.mark.parametrize("arguments, message", [
    (["missing", "-o", "out.jsonl"], "missing"), (["in", "-o", "nowhere/out.jsonl"], "nowhere"),
    (["in", "-o", "out.txt"], "jsonl"), (["in", "-o", "in/out.jsonl"], "among the inputs"),
    (["in/part0.jsonl", "-o", "in/part0.jsonl"], "among the inputs"), (["in", "-o", "out.jsonl", "--memory", "lots"], "--memory"),
    (["in", "-o", "out.jsonl", "--memory", "1M"], "64 MiB"), (["in", "-o", "out.jsonl", "--bands", "3"], "--rows"),
    (["in", "-o", "out.jsonl", "--threshold", "1.5"], "threshold"), (["in", "-o", "out.jsonl", "--field", "body"], "body"),
    (["in", "-o", "out.jsonl", "--lines", "0"], "lines"), (["empty", "-o", "out.jsonl"], "no usable text")])
def test_bad_requests_get_one_clear_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in", corpus()[:5])
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "dedup", *arguments]) == 1
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command(tmp_path, capsys):
    write_jsonl(tmp_path / "in", corpus())
    (tmp_path / "in" / "binary.txt").write_bytes(b"\0\1\2")
    (tmp_path / "in" / "broken.jsonl").write_text('{"text": 3}\n{"text": "one that is fine"}\nno json\n')
    assert main(["data", "dedup", str(tmp_path / "in"), "-o", str(tmp_path / "out.jsonl"), "--json", "--memory", "64M"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert "kept" in captured.err and report["input"]["skipped"] == {
        "binary": 1, "bad JSON": 1, "without a text field 'text'": 1}
    assert report["kept"]["documents"] == len((tmp_path / "out.jsonl").read_text().splitlines())


@pytest.mark.parametrize("stage", ["table_rows", "bucket_pairs", "example_clusters", "summary"])
def test_stopped_anywhere_the_old_output_stays(tmp_path, monkeypatch, stage):
    run(tmp_path, corpus()[:9])
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def stop(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(duplicates, stage, stop)
    assert main(["data", "dedup", str(tmp_path / "in"), "-o", str(tmp_path / "out.jsonl")]) == 130
    found = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert found == before


def test_killed_leaves_no_output_and_the_next_run_cleans_up(tmp_path):
    write_jsonl(tmp_path / "in", corpus())
    program = ("import sys, time; from minillm.data.dedup import dedup, stages as duplicates; "
               "duplicates.summary = lambda *_: (print('there', flush=True), time.sleep(60)); "
               f"dedup.dedup([{str(tmp_path / 'in')!r}], {str(tmp_path / 'out.jsonl')!r})")
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "there\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = sorted(path.suffix for path in tmp_path.iterdir() if path.name != "in")
    assert left == [".tmp", ".work"]                          # hidden, and nothing with the output's name
    run(tmp_path, corpus())


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "in", corpus())

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(external.ExternalSort, "add", full)
    with pytest.raises(OSError, match="the disk is full"):
        dedup.dedup([tmp_path / "in"], tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_file_that_may_not_grow_is_one_error(tmp_path):
    """A real limit of the system, hit while the output is written."""
    write_jsonl(tmp_path / "in", corpus(originals=200))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    command = [sys.executable, "-B", "-m", "minillm", "data", "dedup", str(tmp_path / "in"), "-o", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_input_that_changes_meanwhile(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "in", corpus())
    write, path = dedup.write, tmp_path / "in" / "part0.jsonl"

    def change(*arguments):
        path.write_text(path.read_text().replace("new", "newer"))
        return write(*arguments)
    monkeypatch.setattr(dedup, "write", change)
    with pytest.raises(ValueError, match="changed"):
        dedup.dedup([tmp_path / "in"], tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
