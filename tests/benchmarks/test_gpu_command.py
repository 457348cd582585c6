"""`python -m benchmarks.gpu` on the emulator: sections, order, budget, faults, and what it says where it cannot run."""
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu, gpu_plan, gpu_report
from minillm.kernels import select as registry

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)


def a_little_of(steps):
    """Each section once, with few items."""
    sections = {step.name.split()[0]: step for step in reversed(steps)}
    return [replace(step, items=step.items[::9][:2]) for step in reversed(sections.values())]


def test_the_command_on_the_emulator(tmp_path, capsys, monkeypatch):
    """Every section but the sanitizers, in processes of their own."""
    steps = a_little_of(gpu_plan.plan(sim, emulate=True))
    monkeypatch.setattr(gpu_plan, "plan", lambda *_: steps)
    assert gpu.main(["--out", str(tmp_path), "--emulator"]) == 0, capsys.readouterr().out
    document = json.loads((tmp_path / "gpu.json").read_text())
    without = {"sanitizer"} | ({"matmul"} if "linear" not in gpu_plan.with_kernels(True) else set())
    assert [step.name.split()[0] for step in steps] == [name for name in gpu_plan.SECTIONS if name not in without]
    assert document["emulated"] and document["device"]["name"] == "the emulator" and document["device"]["host"]["cpu"]
    assert len(document["correctness"]) == 2 and len(document["attention"]) == 2 and "numpy" in document["beside"]
    assert set(document["conformance"].values()) == {"64/64", "8/8"} and document["ops"][0]["wrong"] == []
    assert set(document["seconds"]) == {step.name for step in steps}
    assert (tmp_path / "gpu.md").read_text().startswith("# minillm's CUDA on the emulator")
    recorded = np.load(tmp_path / "gpu_instructions.npz")
    assert set(recorded) == {f"{name}_{way}" for name in steps[1].items for way in ("in", "out")}
    assert "all right" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert gpu.main(["--out", str(tmp_path / "file"), "--emulator"]) == 2
    assert "error: --out" in (said := capsys.readouterr().err) and len(said.splitlines()) == 1


def test_no_time_is_not_all_right(tmp_path, capsys):
    gpu.main(["--out", str(tmp_path), "--emulator", "--only", "device", "--minutes", "1e-6"])
    assert capsys.readouterr().out.splitlines()[-1] == "all right, of what was not left out"


WRONG = {"attention minillm 3_mma": {"rows": [], "wrong": {"dq": 0.5}}, "correctness 2_flash": {"right": False},
         "conformance all": {"agree": "7/8", "fixture": {}}, "sanitizer 3_mma": "a race",
         "ops gelu": {"wrong": ["out[0] is 1, expected 2"]}, "matmul cuda": {"rows": [], "wrong": {"forward": 1.0}},
         "bandwidth gelu": {"op": "gelu", "choice": "cuda", "rows": [], "wrong": ["dx[0] is 1, expected 2"]},
         "step minillm": {"wrong": "the loss does not fall: 3, then 4"}}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_fault(name):
    """A fault is a line, and the exit code hangs on there being none."""
    document = gpu.empty(False)
    gpu.add(document, {}, gpu.gpu_runner.Step(name, (), [], 1), "x", WRONG[name])
    assert len(document["faults"]) == 1 and document["faults"][0].startswith(f"{name} x: ")


def test_another_librarys_failure_is_none():
    document = gpu.empty(False)
    step = gpu.gpu_runner.Step("matmul cublaslt", (), [], 1)
    gpu.add(document, {}, step, "x", {"rows": [], "wrong": {"forward": 1.0}})
    assert not document["faults"] and "matmul cublaslt x" in document["left_out"]


def row(name, *losses):
    return {"name": name, "size": "124M", "B": 8, "T": 1024, "dtype": "float32", "losses": losses, "wrong": ""}


def test_a_step_with_other_losses_than_pytorch_is_a_fault():
    """The first loss shows the forward, the third the backward and the optimizer."""
    for losses, faults in (((10.9, 10.5, 10.1, 9.9), 0), ((10.8, 10.5, 10.1, 9.9), 1), ((10.9, 10.5, 10.3, 9.9), 1)):
        document = gpu.empty(False)
        for name, values in (("minillm", (10.9, 10.5, 10.1, 9.9)), ("minillm", losses)):
            gpu.add(document, {}, gpu.gpu_runner.Step(f"step {name}", (), [], 1), "x", row(name, *values))
        assert len(document["faults"]) == faults, losses


def test_what_does_not_exist_yet_is_said():
    document = gpu.empty(False)
    gpu.add(document, {}, gpu.gpu_runner.Step("step minillm", (), [], 1), "x", {"not_built": "no path"})
    assert not document["faults"] and document["not_built"] == {"step minillm": "no path"}


def test_sections_in_order_and_within_their_time(capsys):
    """By worth; sanitizers after everything that is timed; each begins only before its part of the time is over."""
    steps = gpu_plan.plan(sim, emulate=False)
    sections = list(dict.fromkeys(step.name.split()[0] for step in steps))
    expected = [name for name in gpu_plan.SECTIONS if name != "matmul" or "linear" in gpu_plan.with_kernels(False)]
    assert sections == expected and sum(gpu_plan.SECTIONS.values()) == 100
    shares = [step.share for step in steps]
    assert shares == sorted(shares) and shares[0] == 0.04 and shares[-1] == 1
    some = gpu_plan.plan(sim, False, ["attention", "conformance"])
    assert [step.name.split()[0] for step in some][0] == "conformance" and some[-1].share == 1
    for wrong, words in ((["--minutes", "0"], "--minutes: must be above 0: got 0"),
                         (["--only", "speed"], "no section 'speed': there is device, conformance")):
        with pytest.raises(SystemExit):
            gpu.main(["--out", "x", *wrong])
        assert words in capsys.readouterr().err


def test_without_a_gpu_it_says_so(tmp_path, capsys, monkeypatch):
    """A line that names what is missing: the module, or the driver."""
    broken = SimpleNamespace(driver_problem=lambda: "no NVIDIA driver")
    for module, words in ((None, "error: the cuda kernels are not built: "), (broken, "cannot run here: no NVIDIA")):
        monkeypatch.setattr(registry, "cuda", lambda name, module=module: module)
        assert gpu.main(["--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.splitlines()) == 1


def test_a_module_too_large_to_carry_is_said(tmp_path, monkeypatch, capsys):
    big = tmp_path / "cuda.so"
    with open(big, "wb") as file:
        file.truncate(65 << 20)
    monkeypatch.setattr(registry, "cuda", lambda name: SimpleNamespace(__file__=str(big)) if name == "cuda" else None)
    assert gpu.carried() == {"cuda": 65.0} and "a machine can be sent 64" in capsys.readouterr().err


def test_percents_say_of_what():
    """Of what this run has measured, else of the datasheet."""
    document = gpu.empty(False)
    document["device"] |= {"datasheet_bf16_tflops": 989.4, "datasheet_gbs": 4800}
    assert gpu_report.peaks(document) == ((989.4, "datasheet"), (4800, "datasheet"))
    document["device"] |= {"torch_bf16_tflops": 700.0, "cublaslt_bf16_tflops": 790.0, "copy_gbs": 4000.0}
    assert gpu_report.peaks(document) == ((790.0, "measured: cublaslt"), (4000.0, "measured: copy on the device"))
    assert gpu_report.percent(395, 790.0) == "50%" and gpu_report.percent(1, None) == "-"
