"""The machine's description and its measured limits."""
import json

from benching import quick  # noqa: F401  (quick is a fixture of every test)

from benchmarks import machine


def test_no_paths_or_host_names_in_the_description():
    text = json.dumps(machine.describe(2))
    assert "/" not in text.replace(machine.describe(2)["family"], "") and machine.platform.node() not in text


def test_machine_limits_are_positive_and_say_what_they_are(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(machine, "GEMM", 64)
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    found = machine.peaks(2, ("float32", "float64"), stream=2 ** 20)
    assert set(found) == {"memory", "float32", "float64"}
    for peak in found.values():
        assert peak["tried"][peak["by"]] == max(peak["tried"].values()) == peak.get("gflops", peak.get("gbs")) > 0


def test_other_work_is_what_the_machine_did_without_us(monkeypatch):
    """Of 12 busy seconds in 10, 7 were ours: half a core was somebody else's."""
    times = iter([(100.0, 3.0, 50.0), (112.0, 10.0, 60.0)])
    monkeypatch.setattr(machine, "usage", lambda: next(times))
    assert machine.others(machine.usage()) == 0.5
    monkeypatch.setattr(machine, "usage", lambda: None)
    assert machine.others(None) is None
