"""`minillm gradcheck`: the table of every op on every backend, and a failure that is loud."""
import json

from minillm.__main__ import main


def test_gradcheck_command(capsys):
    assert main(["gradcheck", "--op", "gelu", "--op", "layernorm"]) == 0
    assert "right" in capsys.readouterr().out
    assert main(["gradcheck", "--op", "layernorm", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {"x", "weight", "bias"} and all(row["passed"] for row in rows)
    assert main(["gradcheck", "--model"]) == 0


def test_gradcheck_fails_loudly(capsys, monkeypatch):
    from minillm import ops
    monkeypatch.setattr(ops, "gelu_backward", lambda dout, cache: dout)
    assert main(["gradcheck", "--op", "gelu", "--backend", "numpy"]) == 1
    assert "WRONG: gelu on numpy: gradient of x" in capsys.readouterr().out
