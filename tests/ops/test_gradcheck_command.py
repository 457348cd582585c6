"""`minillm gradcheck` as README has it: the whole table, every op in every backend. (test_cli.py has its options.)"""
import json

from minillm.__main__ import main
from minillm.kernels import select as registry
from minillm.ops.table import OPS


def test_the_whole_table(capsys, monkeypatch):
    """But for the CUDA emulator, which takes longer than all others: test_contract.py checks its gradients."""
    monkeypatch.setattr(registry, "cuda", lambda backend: None)
    assert main(["gradcheck", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["passed"] for row in rows)
    assert {(row["op"], row["backend"], row["method"]) for row in rows} == {
        (op, choice, method) for op, spec in OPS.items() if spec.kind == "pair"
        for choice in registry.choices(op, "float64") for method in ["central"] + ["complex"] * (choice == "numpy")}
