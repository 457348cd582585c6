"""Every kernel of the CUDA zoo is accepted on the emulator; each with a planted bug is refused with the right word and
line.

CI takes two of the eight files a day, kernels at three sizes and bugs. MINILLM_CUDA_ZOO=all takes all files, and
every check of the kernels (some minutes).
"""
import os
import shutil
from datetime import date

import pytest
from cuda_zoo import BUGS, ZOO, with_bugs

from minillm.ops.table import Dims
from minillm.workbench.kernel.check import MEDIUM, check_kernel, judged, notes, of
from minillm.workbench.kernel.process import Died
from minillm.workbench.kernel.runner import Bench, Refused
from minillm.workbench.kernel.subject import subjects

pytest.importorskip("cffi")
pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="the emulator needs g++")
SIZES = (MEDIUM, Dims(B=3, T=5, C=7, NH=1, V=3), Dims(B=2, T=33, C=6, NH=3, V=130))
FILES = sorted(path.stem for path in ZOO.glob("*.cu"))
ALL = os.environ.get("MINILLM_CUDA_ZOO") == "all"
TODAY = FILES if ALL else [FILES[(date.today().toordinal() + i) % len(FILES)] for i in (0, 3)]


def said_of(kernel):
    """(kind, message) of what three sizes show."""
    bench = Bench(kernel, threads=1)
    try:
        judged(bench, [of(bench, dims, seed=3) for dims in SIZES])
    except Refused as refused:
        return [refused.args]
    except Died as died:
        return [("runs", str(died))]
    finally:
        bench.close()
    return [(finding.check, finding.message) for finding in notes(kernel)]


@pytest.mark.parametrize("file", TODAY)
def test_right_kernels_are_accepted_and_planted_bugs_refused(tmp_path, file):
    """One compilation for both."""
    bugs, wrong = [bug for bug in BUGS if bug.file == file], []
    text, lines = with_bugs(file, bugs)
    path = tmp_path / f"{file}.cu"
    path.write_text(text)
    shutil.copy(ZOO / "common.cuh", tmp_path)
    for kernel in subjects(str(path), None):
        name, _, number = kernel.name.partition("_bug")
        said = said_of(kernel)
        if not number:
            serious = [message for kind, message in said if kind not in NOTES]
            wrong += [f"{name}: {message}" for message in serious]
            continue
        bug = bugs[int(number)]
        places = [f"{file}.cu:{line}: " for line in lines[int(number)]] if bug.line else [""]
        places = ["common.cuh:"] if bug.line == "common.cuh" else places
        if not any(told(bug.kind, place, *one) for place in places for one in said):
            wrong.append(f"{name}: {bug.old!r} -> {bug.new!r}: expected {bug.kind} at {places}, got {said}")
    assert not wrong, "\n".join(wrong)


def told(kind, place, first, message):
    """Is it the first that is said, or one of those named behind it?"""
    return kind == first and message.startswith(place) or f"{kind} at {place[:-2]}" in message


NOTES = ("bank conflicts", "uncoalesced", "not repeatable", "same value", "unchecked launch", "leak", "undefined lane")


@pytest.mark.skipif(not ALL, reason="MINILLM_CUDA_ZOO=all takes every check")
@pytest.mark.parametrize("file", FILES)
def test_right_kernels_pass_every_check(file):
    for kernel in subjects(str(ZOO / f"{file}.cu"), None):
        wrong = [str(finding) for finding in check_kernel(kernel, 1, 5) if not finding.passed]
        assert not wrong, "\n".join(wrong)


def test_there_are_enough_of_them():
    kernels = sum((ZOO / f"{file}.cu").read_text().count("// ---- ") for file in FILES)
    assert kernels >= 40 and len(BUGS) >= 60
    assert {"missing"} | {bug.kind for bug in BUGS} >= {
        "out of bounds", "race", "divergence", "misaligned", "uninitialised", "freed memory", "host memory", "overflow",
        "launch", "unchecked launch", "bank conflicts", "values"}
