"""`minillm info`: what this installation is."""
import json

from minillm.__main__ import main


def test_info(capsys):
    assert main(["info"]) == 0
    page = capsys.readouterr().out
    assert "CPU features: " in page and ": tokenizer" in page and ": deduplication" in page
    for word in ("minillm", "NumPy", "layernorm", "scalar", "cuda"):
        assert word in page
    assert main(["info", "--json"]) == 0
    assert "ops" in json.loads(capsys.readouterr().out)
