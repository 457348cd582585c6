"""minillm kernel list, new, check and bench, as a user calls them."""
import json
from pathlib import Path

import pytest
from honest_kernels import HONEST

from minillm.__main__ import main
from minillm.ops.table import OPS, Dims, functions
from minillm.workbench.kernel.template import listing, new_file

pytest.importorskip("cffi")
TRAINER = Path(__file__).with_name("trainer.c")


def source(folder, name="OpenMP"):
    file, _, text = HONEST[name]
    (folder / file).write_text(text)
    return str(folder / file)


def test_list_shows_every_function_with_its_costs(capsys):
    assert main(["kernel", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["function"] for row in rows] == [name for spec in OPS.values() for name in functions(spec)]
    assert all(row["flops"] >= 0 and row["bytes"] > 0 for row in rows)
    (forward,) = (row for row in rows if row["function"] == "layernorm_forward")
    assert forward["bytes"] == 4 * (2 * 4 * 256 * 768 + 2 * 4 * 256 + 2 * 768)
    assert main(["kernel", "list"]) == 0 and "void gelu_backward(float* dx" in capsys.readouterr().out


@pytest.mark.parametrize("lang", ["c", "cpp", "py"])
@pytest.mark.parametrize("op", OPS)
def test_a_new_file_compiles_and_fails_the_check(tmp_path, capsys, op, lang):
    path = tmp_path / f"my.{lang}"
    assert main(["kernel", "new", op, "--lang", lang, "-o", str(path)]) == 0
    if op in ("layernorm", "adamw", "embedding"):                       # the others would only take time
        capsys.readouterr()
        assert main(["kernel", "check", str(path), "--op", op, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert {row["check"] for row in found if not row["passed"]} <= {"values", "results"}
    assert main(["kernel", "new", op, "--lang", lang, "-o", str(path)]) == 1            # nothing is written over


def test_new_writes_cuda_too_and_one_direction_alone(tmp_path):
    assert main(["kernel", "new", "gelu", "--direction", "backward", "--lang", "cu", "-o", str(tmp_path / "a.cu")]) == 0
    text = (tmp_path / "a.cu").read_text()
    assert "void gelu_backward(" in text and "gelu_forward(" not in text


def test_a_whole_trainer_passes_function_by_function(capsys):
    assert main(["kernel", "check", str(TRAINER), "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len({row["function"] for row in found}) == 16 and all(row["passed"] for row in found)


def test_a_shared_library_is_bound_by_a_prototype(tmp_path, capsys):
    import subprocess
    made = tmp_path / "libmine.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", made, source(tmp_path, "naive"), "-lm"], check=True)
    prototype = "void layernorm_forward(float* out, float* x, float* weight, float* bias, int B, int T, int C)"
    assert main(["kernel", "check", str(made), "--op", "layernorm", "--bind", prototype]) == 0


@pytest.mark.parametrize("arguments, code, words", [
    (["none.c", "--op", "gelu"], 2, "existing"), (["{0}", "--op", "softplus"], 2, "--op must be one of"),
    (["{0}"], 2, "--all"), (["{0}", "--op", "layernorm", "--cc", "nosuchcc"], 2, "no compiler"),
    (["{0}", "--op", "layernorm", "--cflags=--no-such-flag"], 1, "does not compile"),
])
def test_wrong_usage_is_2_and_a_refusal_1(tmp_path, capsys, arguments, code, words):
    path = source(tmp_path)
    assert main(["kernel", "check", *(a.format(path) for a in arguments)]) == code
    out = capsys.readouterr()
    assert words in out.out + out.err


@pytest.mark.parametrize("arguments, words", [
    (["--dims", "B=x"], "--dims"), (["--dims", "B=0"], "--dims"), (["--dims", "B"], "--dims"),
    (["--workload", "none"], "--workload"), (["--threads", "0"], "--threads"),
])
def test_bench_names_a_wrong_option_before_it_works(tmp_path, capsys, arguments, words):
    assert main(["kernel", "bench", source(tmp_path), "--op", "layernorm", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_macros_and_headers(tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "scale.h").write_text("#define SCALE HALF\n")
    path = tmp_path / "a.c"
    path.write_text('#include "scale.h"\n#include <math.h>\nvoid gelu_forward(float* out, const float* x, int N) {\n'
                    "for (int i = 0; i < N; i++) out[i] = SCALE * x[i] * (1 + tanhf(0.7978845608f * (x[i] + 0.044715f "
                    "* "
                    "x[i] * x[i] * x[i]))); }\nint main(void) { return 0; }\n")
    flags = ["-D", "HALF=0.5f", "-I", str(tmp_path / "include")]
    assert main(["kernel", "check", str(path), "--op", "gelu", *flags]) == 0


SMALL = ["--dims", "B=2 T=16 C=64 NH=2 V=50"]


def test_bench_times_keeps_and_shows(tmp_path, capsys):
    log = ["--log", str(tmp_path / "log.jsonl")]
    path = source(tmp_path)
    assert main(["kernel", "bench", path, "--op", "layernorm", *SMALL, *log, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert set(row["ms"]) == {"yours", "numpy", "cpu"} and set(row["ratio"]) == {"numpy", "cpu"}
    assert 0 < row["score"] <= 1 and 0 < row["roofline_percent"] < 130 and row["bound"] in ("memory", "compute")
    assert json.loads((tmp_path / "log.jsonl").read_text()) == row
    assert main(["kernel", "bench", "--table", *log]) == 0 and "layernorm_forward" in capsys.readouterr().out


@pytest.mark.parametrize("name, source_of, words", [
    ("wrong after the checks", "static int calls; void gelu_forward(float* out, const float* x, int N) {"
     " if (N == 8192 && calls++ > 30) return;", "timed results"),
    ("nothing where it has been",
     "static const float* seen[4096]; void gelu_forward(float* out, const float* x, int N) {"
     " long slot = ((long)x >> 12) % 4096; if (seen[slot] == x && N == 4 * 2 * 16 * 64) return; seen[slot] = x;",
     "timed results"),
    ("a process once it is timed", "#include <unistd.h>\nstatic int calls;"
     " void gelu_forward(float* out, const float* x, int N)"
     " { if (N == 8192 && ++calls == 30 && !fork()) for (;;) sleep(1);",
     "started a process"),
])
def test_bench_refuses_what_cheats_while_it_is_timed(tmp_path, capsys, name, source_of, words):
    path = tmp_path / "a.c"
    path.write_text("#include <math.h>\n" + source_of
                    + " for (int i = 0; i < N; i++) out[i] = 0.5f * x[i] * (1 + tanhf("
                    "0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]))); }\n")
    assert main(["kernel", "bench", str(path), "--op", "gelu", *SMALL, "--log", str(tmp_path / "log"), "--against",
                 "numpy"]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "log").exists()


def test_bench_gives_nobody_the_inputs_before_its_clock_runs(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text("""
import __main__
import numpy as np

def forward(x):
    return np.float32(0.5) * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x))), None

prepare = __main__.Python.prepare

def ahead(self, request):
    addresses = prepare(self, request)
    for given, results, cache in self.sets:
        results[0][1][...] = forward(*given.values())[0]
    return addresses

__main__.Python.prepare, __main__.Python.run = ahead, lambda self: None
""")
    log = ["--log", str(tmp_path / "log"), "--against", "numpy"]
    assert main(["kernel", "bench", str(path), "--op", "gelu", *SMALL, *log]) == 1
    assert "timed results" in capsys.readouterr().err


def test_results_travel(tmp_path, capsys):
    """Definition, workload, solution and trace are written, and a solution is checked and timed again elsewhere."""
    pair = ["--log", str(tmp_path / "log"), "--against", "numpy"]
    path = source(tmp_path)
    assert main(["kernel", "bench", path, "--op", "layernorm", *SMALL, *pair, "--exchange", str(tmp_path / "x")]) == 0
    found = {kind: next((tmp_path / "x" / kind).rglob("*.json*"))
             for kind in ("definitions", "workloads", "solutions", "traces")}
    definition, trace = json.loads(found["definitions"].read_text()), json.loads(found["traces"].read_text())
    assert definition["axes"] == {"B": {"type": "var"}, "T": {"type": "var"}, "C": {"type": "const", "value": 64}}
    assert definition["inputs"]["x"] == {"shape": ["B", "T", "C"], "dtype": "float32"}
    assert trace["definition"] == definition["name"] and trace["evaluation"]["status"] == "PASSED"
    assert trace["evaluation"]["performance"]["speedup_factor"] > 0 and trace["workload"]["axes"] == {"B": 2, "T": 16}
    capsys.readouterr()
    workload = ["--workload", str(found["workloads"])]
    assert main(["kernel", "bench", str(found["solutions"]), *workload, *pair, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["dims"]["T"] == 16


@pytest.mark.parametrize("style, call", [(False, "return 0.5 * x * (1 + t)"), (True, "out[:] = 0.5 * x * (1 + t)")])
def test_a_solution_of_others_returns_its_results_or_fills_them(tmp_path, style, call):
    code = ("import numpy as np\n\ndef run(x" + ", out" * style
            + "):\n    t = np.tanh(np.float32(0.7978845608) * (x + np.float32("
            f"0.044715) * x * x * x))\n    {call}\n").replace("0.5 *", "np.float32(0.5) *")
    solution = {"name": "g", "definition": "gelu_forward_c64", "author": "a",
                "sources": [{"path": "main.py", "content": code}],
                "spec": {"language": "python", "entry_point": "main.py::run", "target_hardware": ["cpu"],
                         "destination_passing_style": style}}
    (tmp_path / "g.json").write_text(json.dumps(solution))
    assert main(["kernel", "check", str(tmp_path / "g.json")]) == 0


def test_a_definition_holds_its_reference(tmp_path):
    import numpy as np

    from minillm.workbench.kernel.exchange import definition
    made: dict = {}
    exec(definition("layernorm", "forward", Dims())["reference"], made)
    x, weight, bias = np.ones((2, 3, 8), "float32"), np.ones(8, "float32"), np.zeros(8, "float32")
    out, mean, rstd = made["run"](x, weight, bias)
    assert out.shape == (2, 3, 8) and np.allclose(mean, 1) and rstd.shape == (2, 3)


def test_costs_of_every_function_are_those_of_its_arrays():
    assert all(row["bytes"] >= 4 * len(row["shapes"]) for row in listing())


@pytest.mark.parametrize("ending", ["c", "cu"])
def test_numbers_that_a_kernel_must_know_are_told(ending):
    assert {row["op"]: row["constants"] for row in listing()}["rmsnorm"] == {"eps": 1e-6}
    assert "// eps is 1e-06\n" in new_file("rmsnorm", None, ending)


def test_a_call_too_short_for_the_clock_is_no_cheat():
    """Where the way to the child and back takes longer than the roofline's time, a time of 0 says nothing."""
    from types import SimpleNamespace

    from minillm.workbench.kernel.bench import Entrant, Peaks, Refused, row
    kernel = SimpleNamespace(op="gelu", direction="forward", name="gelu_forward", dtype="float32")
    dims = Dims(B=1, T=4, C=8)
    peaks = Peaks(kernel, dims, 1)
    peaks.flops, peaks.bandwidth = 1e11, 1e10
    mine, numpy = (Entrant.__new__(Entrant) for _ in range(2))
    for entrant, name, seconds in ((mine, "mine", 0.0), (numpy, "numpy", 1e-4)):
        entrant.name, entrant.trusted, entrant.times = name, name == "numpy", {"cold": [seconds], "warm": [seconds]}
    mine.overhead = 1e-5
    assert row(kernel, [mine, numpy], dims, 1, 24, peaks, None)["roofline_percent"] == pytest.approx(100)
    mine.overhead = 1e-9
    with pytest.raises(Refused, match="faster than this machine"):
        row(kernel, [mine, numpy], dims, 1, 24, peaks, None)
