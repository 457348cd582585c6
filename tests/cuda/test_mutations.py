"""A few of the bugs of cuda_mutations.py, planted: the emulator catches them.
That script goes through the whole list."""
import datetime
import re
import shutil

import cuda_mutations
import pytest
from cuda_mutations import CUDA, verdict
from cuda_planted import FAR_MUTANTS, MUTANTS, WATCHED_MUTANTS, WGMMA_BACK

if not shutil.which("g++") or not CUDA.exists():
    pytest.skip("needs g++ and the sources in csrc", allow_module_level=True)

QUICK = {("attention/2_flash.cuh", "a barrier in a branch"): "divergence: .*2_flash.cuh:",
         ("attention/3_mma.cuh", "no barrier"): "schedule",
         ("attention/3_mma.cuh", "no swizzle"): "bank conflicts",
         ("attention/4_wgmma.cuh", "V released before its matmul is done"): "out is off"}
EVERY = (*MUTANTS, *FAR_MUTANTS, *WATCHED_MUTANTS)


@pytest.mark.parametrize("file, what", QUICK, ids=lambda text: text.replace(" ", "_"))
def test_planted_bug_is_caught(file, what):
    mutant, = (m for m in MUTANTS if m[:2] == (what, file))
    found = verdict(mutant)
    assert re.search(QUICK[file, what], found), found or "not caught"


def test_todays_bug_is_caught():
    """One of those that the emulator did not see at first, or of the youngest kernel; another each day."""
    late = "a wait that", "launch bounds", "registers shared"
    slow_to_see = [*FAR_MUTANTS, *WATCHED_MUTANTS,
                   *(m for m in MUTANTS if m[1] == WGMMA_BACK or any(words in m[0] for words in late))]
    mutant = slow_to_see[datetime.date.today().toordinal() % len(slow_to_see)]
    assert verdict(mutant), f"not caught: {mutant[:2]}"


@pytest.mark.parametrize("mutant", EVERY, ids=lambda m: f"{m[1]}-{m[0]}".replace(" ", "_"))
def test_mutants_fit_the_sources(mutant):
    """The script replaces text; after a change of the kernels it must still find it."""
    _, file, text, replacement = mutant
    assert text in (CUDA / file).read_text() and text != replacement


def test_no_mutant_is_listed_twice():
    assert len({m[:2] for m in EVERY}) == len({m[1:] for m in EVERY}) == len(EVERY) >= 40
    assert set(cuda_mutations.VARIANT.values()) == {1, 2, 3, 4}
