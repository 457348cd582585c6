"""Every cheat and bug of the zoo is refused for the right reason; no honest kernel is."""
import pytest
from honest_kernels import HONEST
from kernel_zoo import ZOO

from minillm.workbench.kernel import process
from minillm.workbench.kernel.check import check_kernel
from minillm.workbench.kernel.subject import subjects

pytest.importorskip("cffi")


def findings(folder, file, op, source, threads=1, seed=0):
    path = folder / file
    path.write_text(source)
    return [finding for kernel in subjects(str(path), op) for finding in check_kernel(kernel, threads, seed)]


@pytest.mark.parametrize("name", ZOO)
def test_cheats_and_bugs_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(process, "CALL_SECONDS", 2.0)
    file, op, source, (check, words) = ZOO[name]
    refused = [finding for finding in findings(tmp_path, file, op, source) if not finding.passed]
    assert refused
    assert any(finding.check == check and words in finding.message for finding in refused), "\n".join(map(str, refused))


@pytest.mark.parametrize("name", HONEST)
def test_honest_kernels_are_accepted(tmp_path, name):
    assert not [str(finding) for finding in findings(tmp_path, *HONEST[name], seed=None) if not finding.passed]
