"""Deduplication that fails or is killed leaves the earlier output, one clear line, and nothing else."""
import json
import resource
import signal
import subprocess
import sys

import pytest
from duplicates import corpus, run, write_jsonl

from minillm.__main__ import main
from minillm.data.dedup import clusters, pipeline, report
from minillm.data.dedup.external_sort import ExternalSort
from minillm.data.dedup.pipeline import dedup


@pytest.mark.parametrize("arguments, message", [
    (["missing", "-o", "out.jsonl"], "missing"), (["in", "-o", "nowhere/out.jsonl"], "nowhere"),
    (["in", "-o", "out.txt"], "jsonl"), (["in", "-o", "in/out.jsonl"], "among the inputs"),
    (["in/part0.jsonl", "-o", "in/part0.jsonl"], "among the inputs"),
    (["in", "-o", "out.jsonl", "--memory", "lots"], "--memory"),
    (["in", "-o", "out.jsonl", "--memory", "1M"], "64 MiB"), (["in", "-o", "out.jsonl", "--bands", "3"], "--rows"),
    (["in", "-o", "out.jsonl", "--threshold", "1.5"], "threshold"),
    (["in", "-o", "out.jsonl", "--field", "body"], "body"),
    (["in", "-o", "out.jsonl", "--lines", "0"], "lines"), (["in", "-o", "out.jsonl", "--ngram", "0"], "ngram"),
    (["in", "-o", "out.jsonl", "--lines", "2", "--line-dedup"], "exclude each other"),
    (["empty", "-o", "out.jsonl"], "no usable text")])
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
    assert main(["data", "dedup", str(tmp_path / "in"), "-o",
                 str(tmp_path / "out.jsonl"), "--json", "--memory", "64M"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert "kept" in captured.err and report["input"]["skipped"] == {
        "binary": 1, "bad JSON": 1, "without a text field 'text'": 1}
    assert report["kept"]["documents"] == len((tmp_path / "out.jsonl").read_text().splitlines())


@pytest.mark.parametrize("module, stage", [(pipeline, "table_rows"), (clusters, "bucket_pairs"),
                                           (pipeline, "example_clusters"), (report, "summary")])
def test_stopped_anywhere_the_old_output_stays(tmp_path, monkeypatch, module, stage):
    run(tmp_path, corpus()[:9])
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def stop(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(module, stage, stop)
    assert main(["data", "dedup", str(tmp_path / "in"), "-o", str(tmp_path / "out.jsonl")]) == 130
    found = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert found == before


def test_killed_leaves_no_output_and_the_next_run_cleans_up(tmp_path):
    write_jsonl(tmp_path / "in", corpus())
    program = ("import sys, time; from minillm.data.dedup import pipeline, report; "
               "report.summary = lambda *_: (print('there', flush=True), time.sleep(60)); "
               f"pipeline.dedup([{str(tmp_path / 'in')!r}], {str(tmp_path / 'out.jsonl')!r})")
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
    monkeypatch.setattr(ExternalSort, "add", full)
    with pytest.raises(OSError, match="the disk is full"):
        dedup([tmp_path / "in"], tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_file_that_may_not_grow_is_one_error(tmp_path):
    """A real limit of the system, hit while the output is written."""
    write_jsonl(tmp_path / "in", corpus(originals=200))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    command = [sys.executable, "-B", "-m", "minillm", "data", "dedup",
               str(tmp_path / "in"), "-o", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_input_that_changes_meanwhile(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "in", corpus())
    write, path = pipeline.write_kept, tmp_path / "in" / "part0.jsonl"

    def change(*arguments):
        path.write_text(path.read_text().replace("new", "newer"))
        return write(*arguments)
    monkeypatch.setattr(pipeline, "write_kept", change)
    with pytest.raises(ValueError, match="changed"):
        dedup([tmp_path / "in"], tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
