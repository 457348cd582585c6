"""A few of the bugs of cuda_mutations.py, planted: the emulator catches them.
That script goes through the whole list."""
import re
import shutil

import cuda_mutations
import pytest
from cuda_mutations import CUDA, MUTANTS, verdict

if not shutil.which("g++") or not CUDA.exists():
    pytest.skip("needs g++ and the sources in csrc", allow_module_level=True)

QUICK = {("attention/2_flash.cuh", "a barrier in a branch"): "divergence: .*2_flash.cuh:",
         ("attention/3_mma.cuh", "no barrier"): "schedule",
         ("attention/3_mma.cuh", "no swizzle"): "bank conflicts",
         ("attention/4_wgmma.cuh", "V released before its matmul is done"): "out is off",
         ("attention/4_wgmma.cuh", "zeros are not published"): "NaN in v"}


@pytest.mark.parametrize("file, what", QUICK, ids=lambda text: text.replace(" ", "_"))
def test_planted_bug_is_caught(file, what):
    mutant, = (m for m in MUTANTS if m[:2] == (what, file))
    found = verdict(mutant)
    assert re.search(QUICK[file, what], found), found or "not caught"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m[1]}-{m[0]}".replace(" ", "_"))
def test_mutants_fit_the_sources(mutant):
    """The script replaces text; after a change of the kernels it must still find it."""
    _, file, text, replacement = mutant
    assert text in (CUDA / file).read_text() and text != replacement


def test_no_mutant_is_listed_twice():
    assert len({m[:2] for m in MUTANTS}) == len({m[1:] for m in MUTANTS}) == len(MUTANTS) >= 40
    assert set(cuda_mutations.VARIANT.values()) == {1, 2, 3, 4}
