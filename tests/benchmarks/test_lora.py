"""The benchmark of adapters: the same losses from everybody, one race in each type; its results are no README table."""
import numpy as np
import pytest
from benching import quick, run_json  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import report

TINY = ("--size", "tiny", "--batch", "2", "--tokens", "8", "--only", "minillm fp32,whole model fp32")


def test_adapters_and_the_whole_model_on_a_tiny_model(tmp_path):
    code, document = run_json(tmp_path, "lora", *TINY)
    ours, whole = document["rows"]
    assert code == 0 and (ours["candidate"], whole["candidate"]) == ("minillm fp32", "whole model fp32")
    assert ours["op"] == "lora r=8" and ours["x_minillm"] == 1 and whole["x_minillm"] > 0
    assert ours["losses"][2] < ours["losses"][0] == pytest.approx(np.log(257), rel=0.02)
    assert report.own_table(document) == "lora"


def test_dpo_begins_at_log_2(tmp_path):
    code, document = run_json(tmp_path, "lora_dpo", *TINY)
    assert code == 0
    for row in document["rows"]:
        assert row["losses"][2] < row["losses"][0] == pytest.approx(np.log(2), rel=1e-5)


def test_odd_batches_have_no_pairs(capsys):
    assert cli.main(["lora", "--size", "tiny", "--batch", "3"]) == 2
    assert "--batch must be even" in capsys.readouterr().err
