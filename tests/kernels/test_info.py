"""`minillm info`: what this installation is."""
import json

import pytest

from minillm import GPT, GPTConfig
from minillm.__main__ import main
from minillm.models.quantized import arithmetic_in_use, quantize, save_quantized


def test_info(capsys):
    assert main(["info"]) == 0
    page = capsys.readouterr().out
    assert "CPU features: " in page and ": tokenizer" in page and ": deduplication" in page
    for word in ("minillm", "NumPy", "layernorm", "scalar", "cuda"):
        assert word in page
    assert main(["info", "--json"]) == 0
    assert "ops" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("weights, arithmetic, line", [
    ("int8", "integer", "int8 weights, integer arithmetic: activations are rounded to int8, too"),
    ("int4", "float", "int4 weights, float arithmetic: activations are not rounded"), ("bfloat16", "integer", ""),
])
def test_of_a_model_what_multiplies_its_weights(tmp_path, capsys, weights, arithmetic, line):
    model = quantize(GPT(GPTConfig(1, 2, 64, 16, 40)), weights, arithmetic=arithmetic)
    save_quantized(tmp_path, model)
    assert main(["info", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "GPT-2, 53,696 parameters, context length 16, 40 tokens; " + (line or "float weights") in said
    assert arithmetic_in_use(model) == line
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == (line or "float weights")
