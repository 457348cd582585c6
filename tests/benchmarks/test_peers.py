"""The table of peers: a line for each CPU, ratios within one run, what nobody measured is said; and the peers
themselves, where they are installed, give our logits."""
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from benching import EMPTY

from benchmarks import decode, report
from benchmarks.report_peers import NOT_MEASURED, PEERS, cpu_of, peers_table
from benchmarks.step import job_for, sizes

PACKAGES = {"transformers": ("torch", "transformers"), "ctranslate2": ("torch", "transformers", "ctranslate2"),
            "llama.cpp": ("llama_cpp", "gguf"), "onnxruntime": ("onnx", "onnxruntime")}


def run_of(family, **times):
    rows = [{"op": "decode", "dims": "124M B=1 T=132", "candidate": name.replace("_", " "), "median_ms": ms,
             "x_minillm": 1.0, "floor_percent": share} for name, (ms, share) in times.items()]
    return EMPTY | {"rows": rows, "machine": EMPTY["machine"] | {"family": family}}


def test_a_line_for_each_machine_and_a_column_for_each_peer():
    table = peers_table([run_of("26/2/1", minillm_fp32=(10.0, 90), transformers_fp32=(25.0, 36)),
                         run_of("25/17/1", minillm_fp32=(20.0, 80), ctranslate2_fp32=(18.0, 89)),
                         run_of("25/17/1", minillm_fp32=(22.0, 81), onnxruntime_fp32=(33.0, None))])
    heading, zen4, zen5 = table
    assert all(peer in " ".join(heading) for peer in PEERS)
    assert zen4[2].endswith("(Zen 4)") and zen5[2].endswith("(Zen 5)")
    assert zen4[3:] == ["22.0, 81%", NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, "18.0, 0.90x, 89%", NOT_MEASURED,
                        "33.0, 1.50x"]                                         # each ratio is of its own run
    assert zen5[3:6] == ["10.0, 90%", NOT_MEASURED, NOT_MEASURED] and zen5[6] == "25.0, 2.50x, 36%"


def test_the_front_page_names_the_cpu_and_the_limits_of_the_run():
    document = run_of("26/2/1", minillm_fp32=(10.0, 90), transformers_fp32=(25.0, 36), ctranslate2_int8=(1.0, 50))
    document["peaks"] = {"memory": {"gbs": 61.5, "by": "read"}, "float32": {"gflops": 394.0, "by": "minillm"}}
    text = report.headlines(document | {"machine": document["machine"] | {"threads": 2, "cores": 2}})
    assert "(Zen 5)" in text and "memory 62 GB/s, float32 394 GFLOP/s" in text
    assert "| 10.000 | 90 | transformers fp32 | 25.000 | 36 | 2.50x |" in text          # int8 is another work
    assert cpu_of({"machine": {"cpu": "X"}}) == "X"


@pytest.mark.parametrize("peer", PACKAGES)
def test_a_peer_gives_our_logits(peer):
    """In both tasks and all its forms that this CPU has."""
    for package in PACKAGES[peer]:
        if not find_spec(package):
            pytest.skip(f"{package} is not installed")
    config, B, T = sizes("tiny", 1, 40)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T)).tolist()
    for task, steps in (("decode", 4), ("prefill", 1)):
        with job_for(config, 1, tokens=tokens, steps=steps) as job:
            everybody = decode.candidates(config, task, B, T)
            first, *some = [one for name, one in everybody.items() if name == "minillm fp32" or name.startswith(peer)]
            right = value_of(first, task, job)
            for candidate in some:
                if candidate["options"]["dtype"] != "bfloat16":
                    assert not decode.same_logits(candidate, [value_of(candidate, task, job)], [right])


def value_of(candidate, task, job):
    value = getattr(import_module(f"benchmarks.{candidate['module']}"), task)(job | candidate["options"])()
    return value[0] if isinstance(value, tuple) else value
