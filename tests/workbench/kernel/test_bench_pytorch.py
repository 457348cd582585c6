"""minillm kernel bench --against torch: a kernel beside PyTorch's."""
import json

import pytest
from honest_kernels import HONEST

from minillm.__main__ import main


def test_bench_beside_pytorch(tmp_path, capsys):
    pytest.importorskip("cffi"), pytest.importorskip("torch")
    file, _, text = HONEST["OpenMP"]
    (tmp_path / file).write_text(text)
    arguments = ["--op", "layernorm", "--dims", "B=2 T=16 C=64 NH=2 V=50", "--log", str(tmp_path / "log")]
    assert main(["kernel", "bench", str(tmp_path / file), *arguments, "--against", "torch", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)[0]["ms"]) == {"yours", "numpy", "torch"}
