"""The data commands on Dask: two workers, one of them killed in the middle, give what one process gives."""
import json
import os
import signal

import pytest
from duplicates import corpus, write_jsonl
from tolerances import assert_same_bits

from minillm import Tokenizer
from minillm.__main__ import main
from minillm.data.cleaning import pipeline as cleaning
from minillm.data.cleaning.document import CleanOptions
from minillm.data.dedup.minhash import Lsh
from minillm.data.dedup.on_dask import dedup_on_dask
from minillm.data.dedup.pipeline import dedup
from minillm.data.dedup.report import report_path
from minillm.data.dedup.table import DedupOptions
from minillm.data.shards.tokenize import tokenize

distributed = pytest.importorskip("distributed")
OPTIONS = DedupOptions(Lsh(16, 4, ngram=3), threshold=0.7, lines=3, line_characters=10)


@pytest.fixture(scope="module")
def workers():
    """Two worker processes, which are started anew when they die."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        yield local


@pytest.fixture
def inputs(tmp_path):
    """Duplicates within files and between them, lines that repeat, a plain text, and what cannot be read."""
    records = corpus(7) + corpus(8)
    for record in records[::5]:
        record["text"] += "\nthe same line at the end of many"
    folder = write_jsonl(tmp_path / "in", records, files=9)
    (folder / "z.txt").write_text(records[3]["text"] + " and a little more")
    (folder / "binary.txt").write_bytes(b"\0\1")
    (folder / "broken.jsonl").write_text("{\n")
    return folder


def both(tmp_path, inputs, options, run):
    """((output, report) of one process, (output, report) of `run`, a function of the output's path)."""
    results = []
    for name, function in (("one", lambda out: dedup([inputs], out, options)), ("many", run)):
        output = tmp_path / f"{name}.jsonl"
        function(output)
        results.append((output.read_bytes(), json.loads(report_path(output).read_text())))
    return results


def test_the_command_with_an_address(tmp_path, inputs, workers, capsys):
    def run(out):
        assert main(["data", "dedup", str(inputs), "-o", str(out), "--no-verify", "--bands", "20", "--rows", "2",
                     "--ngram", "3", "--line-dedup", "--line-characters", "10",
                     "--scheduler", workers.scheduler_address]) == 0
    options = DedupOptions(Lsh(20, 2, ngram=3), verify=False, line_dedup=True, line_characters=10)
    one, many = both(tmp_path, inputs, options, run)
    assert one == many and "kept" in capsys.readouterr().out


def test_killed_workers_change_nothing(tmp_path, inputs, workers):
    """Each of the two is killed once, when the first results of a stage are there and others are not."""
    waiting = {"signing": 0, "verifying": 1}
    before = [worker.pid for worker in workers.workers.values()]

    def progress(done, total, stage):
        if done == 2 and stage in waiting:
            os.kill(before[waiting.pop(stage)], signal.SIGKILL)
    one, many = both(tmp_path, inputs, OPTIONS,
                     lambda out: dedup_on_dask([inputs], out, OPTIONS, workers.scheduler_address, progress))
    assert one == many and not waiting
    assert not {worker.pid for worker in workers.workers.values()} & set(before)


def test_an_input_without_text(tmp_path, workers):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="no usable text"):
        dedup_on_dask([tmp_path / "in"], tmp_path / "out.jsonl", OPTIONS, workers.scheduler_address)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_without_the_extra(tmp_path, inputs, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert main(["data", "dedup", str(inputs), "-o", str(tmp_path / "out.jsonl"), "--scheduler", "local"]) == 1
    assert "pip install 'minillm[dask]'" in capsys.readouterr().err


def test_cleaning_and_tokenizing_give_what_one_process_gives(tmp_path, inputs, workers, monkeypatch):
    """With a worker killed while it tokenizes."""
    monkeypatch.setattr(cleaning, "BATCH_BYTES", 3000)
    for name, scheduler in (("one", None), ("many", workers.scheduler_address)):
        cleaning.clean([inputs], tmp_path / f"{name}.jsonl", CleanOptions((), processes=1, scheduler=scheduler))
    for end in ("jsonl", "report.json"):
        assert_same_bits((tmp_path / f"many.{end}").read_bytes(), (tmp_path / f"one.{end}").read_bytes(), end)

    victims = [worker.pid for worker in workers.workers.values()]

    def progress(done, total, text):
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()
    tokenizer = Tokenizer.train(["some words and more words"], 260)
    for name, scheduler in (("a", None), ("b", workers.scheduler_address)):
        tokenize([([tmp_path / "one.jsonl"], 1.0)], tokenizer, tmp_path / name, val_fraction=0.3, chunk_bytes=2000,
                 scheduler=scheduler, progress=progress if scheduler else None)
    assert not victims
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert_same_bits({path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}, files)
    assert len(files) > 6
