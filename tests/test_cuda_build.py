"""What nvcc makes of the kernels, checked without a GPU: the intended instructions, no spills, registers within budget.

Needs nvcc for the first half and cuobjdump (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm; MINILLM_CUDA_TOOLS
names a folder that holds them) for the second; each test says what it misses.
"""
import os
import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import pytest

from minillm import info, registry

CUDA = Path(__file__).parent.parent / "csrc" / "cuda"
D64 = """#include "attention_3_mma_backward.cuh"
template __global__ void mma_forward<bf16, 64>(Forward<bf16>, Sizes);
template __global__ void mma_backward<bf16, 64, true>(Backward<bf16>, Sizes);
template __global__ void mma_backward<bf16, 64, false>(Backward<bf16>, Sizes);
"""
KERNELS = ["mma_forward", "mma_backward.*Lb1", "mma_backward.*Lb0"]
INSTRUCTIONS = {"HMMA": "tensor cores", "LDSM": "ldmatrix", "LDGSTS": "asynchronous copies", "MUFU.EX2": "exponentials"}


def tool(name):
    """The path of a CUDA tool, or the test is skipped."""
    wheels = Path(sysconfig.get_paths()["purelib"]).glob(f"nvidia/*/bin/{name}")
    extra = [Path(folder) / name for folder in os.environ.get("MINILLM_CUDA_TOOLS", "").split(":") if folder]
    for place in (*extra, shutil.which(name), f"/usr/local/cuda/bin/{name}", *wheels):
        if place and os.access(place, os.X_OK):
            return str(place)
    pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def cubin(tmp_path_factory):
    """The bfloat16 kernels for heads of 64 on sm_80, and what ptxas says of them."""
    nvcc = tool("nvcc")
    folder = tmp_path_factory.mktemp("cubin")
    (folder / "d64.cu").write_text(D64)
    done = subprocess.run([nvcc, "-std=c++17", "-O3", "-cubin", "-arch=sm_80", "-Xptxas=-v", f"-I{CUDA}", "d64.cu"],
                          cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "d64.cubin", done.stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_spills_and_registers_within_budget(cubin, kernel):
    """255 registers a thread are all there are; a kernel that wants more goes to local memory."""
    report = re.search(rf"entry function '\w*{kernel}.*?Used (\d+) registers", cubin[1], re.DOTALL)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report[0], report[0]
    assert int(report[1]) <= 255


@cache
def sass(path):
    dump = subprocess.run([tool("cuobjdump"), "-sass", path], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": f"{Path(tool('nvdisasm')).parent}:{os.environ['PATH']}"}).stdout
    return {name: body for name, body in re.findall(r"Function : (\w+)(.*?)(?=Function :|\Z)", dump, re.DOTALL)}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_intended_instructions_are_there(cubin, kernel):
    code, = (body for name, body in sass(str(cubin[0])).items() if re.search(kernel, name))
    missing = [f"{word} ({what})" for word, what in INSTRUCTIONS.items() if word not in code]
    assert not missing and not re.search(r"\b(LDL|STL)\b", code)


def test_info_says_whether_it_can_run():
    """Built or not, with or without a driver: importing it never fails."""
    state = info.cuda_state("cuda")
    if registry.cuda("cuda") is None:
        assert state.startswith("not built")
    else:
        assert state in ("built, no NVIDIA driver", "built, no NVIDIA GPU", "built, can be chosen with select")
