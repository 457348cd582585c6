"""Records with duplicates of all kinds, and a run of deduplication on them."""
import itertools
import json
import random

from minillm.data.dedup import minhash
from minillm.data.dedup.pipeline import dedup
from minillm.data.dedup.table import DedupOptions

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
    report = dedup([inputs], folder / "out.jsonl", DedupOptions(**{"lsh": EVERY_PAIR, "threads": 2} | options))
    kept = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out.jsonl", "out.report.json"]
    assert json.loads((folder / "out.report.json").read_text()) == json.loads(json.dumps(report))
    return {record["id"]: record for record in kept}, report
