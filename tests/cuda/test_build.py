"""What nvcc makes of the kernels, checked without a GPU: the intended instructions, no spills, registers within budget.

Needs nvcc for the first half and cuobjdump (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm; MINILLM_CUDA_TOOLS
names a folder that holds them) for the second; each test says what it misses.
"""
import atexit
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import pytest

from minillm.kernels import info
from minillm.kernels import select as registry

CSRC = Path(__file__).parents[2] / "csrc"
MMA = """#include "cuda/attention/3_mma_backward.cuh"
#include "cuda/gpu/conformance.cuh"
namespace minillm::attention {
template __global__ void mma_forward<bf16, 64>(Forward<bf16>, Sizes);
template __global__ void mma_backward<bf16, 64, true>(Backward<bf16>, Sizes);
template __global__ void mma_backward<bf16, 64, false>(Backward<bf16>, Sizes);
}
"""
WGMMA = '#include "cuda/attention/launch_wgmma.cu"\n'
SOURCES = {"80": MMA, "90": MMA, "90a": WGMMA}
AMPERE = {"HMMA": "tensor cores", "LDSM": "ldmatrix", "LDGSTS": "asynchronous copies", "MUFU.EX2": "exponentials"}
HOPPER = {"HGMMA": "warpgroup matmuls", "UTMALDG": "TMA", "SYNCS": "barriers in memory", "USETMAXREG": "registers",
          "MUFU.EX2": "exponentials"}
KERNELS = [(arch, kernel) for arch in ("80", "90")
           for kernel in ("mma_forward", "mma_backward.*Lb1", "mma_backward.*Lb0")]
KERNELS += [("90a", f"wgmma_forward.*{number}Li{D}") for number in ("bfloat16", "half") for D in (64, 128)]
KERNELS += [("90a", f"wgmma_backward.*{number}Li{D}ELb{keys}") for number in ("bfloat16", "half") for D in (64, 128)
            for keys in (0, 1)]
every_kernel = pytest.mark.parametrize("arch, kernel", KERNELS, ids=lambda text: text.replace(".*", " "))


def tool(name):
    """The path of a CUDA tool, or the test is skipped."""
    wheels = Path(sysconfig.get_paths()["purelib"]).glob(f"nvidia/*/bin/{name}")
    extra = [Path(folder) / name for folder in os.environ.get("MINILLM_CUDA_TOOLS", "").split(":") if folder]
    for place in (*extra, shutil.which(name), f"/usr/local/cuda/bin/{name}", *wheels):
        if place and os.access(place, os.X_OK):
            return str(place)
    pytest.skip(f"{name} is not installed")


@cache
def compiled(arch):
    """(folder with the cubin, what nvcc said, ptxas' report in it) of one architecture's bfloat16 kernels."""
    nvcc = tool("nvcc")
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "kernels.cu").write_text(SOURCES[arch])
    done = subprocess.run([nvcc, "-std=c++17", "-O3", "-cubin", f"-gencode=arch=compute_{arch},code=sm_{arch}",
                           "-Xptxas=-v", f"-I{CSRC}", "kernels.cu"], cwd=folder, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return folder / "kernels.cubin", done.stderr


@every_kernel
def test_no_spills_and_registers_within_budget(arch, kernel):
    """255 registers a thread are all there are (168 for each of 384 threads at the start); a kernel that wants more
    goes to local memory."""
    report = re.search(rf"entry function '\w*{kernel}.*?Used (\d+) registers", compiled(arch)[1], re.DOTALL)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report[0], report[0]
    assert int(report[1]) <= (168 if arch == "90a" else 255)


@pytest.mark.parametrize("arch", SOURCES)
def test_ptxas_has_no_complaint(arch):
    """Such as C7510, matmuls made to wait for each other, or C7508, a change of registers that it ignores."""
    assert not re.search(r"warning|C75\d\d|erializ|Potential", compiled(arch)[1]), compiled(arch)[1]


# What each wrapper of gpu_nvcc.h and hopper_nvcc.h must become: the kernels that run each of them alone.
WRAPPERS = {
    "80": ("conformance_kernel", (
        r"HMMA\.16816\.F32\.BF16", r"HMMA\.16816\.F32 ", r"LDSM\.16\.M88\.4", r"LDSM\.16\.MT88\.4", r"LDGDEPBAR",
        r"LDGSTS\.E\.BYPASS\.128", r"LDGSTS\.E ", r"MUFU\.EX2", r"SHFL\.BFLY")),
    "90a": ("hopper_conformance_kernel", (
        r"HGMMA\.64x128x16\.F32\.BF16", r"HGMMA\.64x128x16\.F32 ", r"HGMMA\.64x64x16\.F32\.BF16", r"UTMALDG\.4D",
        r"SYNCS\.EXCH", r"SYNCS\.ARRIVE", r"SYNCS\.PHASECHK", r"WARPGROUP\.ARRIVE", r"WARPGROUP\.DEPBAR"))}


@pytest.mark.parametrize("arch", WRAPPERS)
def test_each_wrapper_is_its_instruction(arch):
    kernel, wanted = WRAPPERS[arch]
    code, = (body for name, body in sass(arch).items() if kernel in name)
    assert [word for word in wanted if not re.search(word, code)] == []
    report = re.search(rf"entry function '\w*{kernel}.*?Used (\d+) registers", compiled(arch)[1], re.DOTALL)
    assert "0 bytes spill stores, 0 bytes spill loads" in report[0], report[0]


@cache
def sass(arch):
    dump = subprocess.run([tool("cuobjdump"), "-sass", compiled(arch)[0]], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": f"{Path(tool('nvdisasm')).parent}:{os.environ['PATH']}"}).stdout
    return {name: body for name, body in re.findall(r"Function : (\w+)(.*?)(?=Function :|\Z)", dump, re.DOTALL)}


@every_kernel
def test_the_intended_instructions_are_there(arch, kernel):
    """And no traffic with local memory."""
    code, = (body for name, body in sass(arch).items() if re.search(kernel, name))
    missing = [f"{word} ({what})" for word, what in (HOPPER if arch == "90a" else AMPERE).items() if word not in code]
    assert not missing and not re.search(r"\b(LDL|STL)\b", code)


def test_products_run_beside_the_softmax():
    """Variant 4's main loop begins S and P V, waits for S alone, and only after exponentials for P V."""
    for name, code in sass("90a").items():
        if "wgmma_forward" not in name:
            continue
        words = re.findall(r"HGMMA|WARPGROUP.DEPBAR.LE gsb0, 0x\d|MUFU.EX2", code)
        one, = (i for i, word in enumerate(words) if word.endswith("0x1"))
        until = next(i for i in range(one, len(words)) if words[i].endswith("0x0"))
        D = 64 if "Li64" in name else 128
        # matmuls of S, 16 of D each; of P V
        assert words[one - D // 16 - 8:one] == ["HGMMA"] * (D // 16 + 8), name
        assert words[one + 1:until].count("MUFU.EX2") >= 64 and "HGMMA" not in words[one:until], name


def test_the_backward_takes_exponentials_beside_a_product():
    """It waits for S alone, takes all exponentials of a tile, and only then waits for dP: of the first tile, and in the
    loop."""
    for name, code in sass("90a").items():
        if "wgmma_backward" in name:
            words = " ".join(re.findall(r"HGMMA|DEPBAR.LE gsb0, 0x\d|MUFU.EX2", code))
            each = 32 if "ELb1" in name else 64             # columns / 2: a lane has so many numbers of a tile
            assert len(re.findall(rf"gsb0, 0x1( MUFU.EX2){{{each}}} DEPBAR.LE gsb0, 0x0", words)) == 2, name


def test_the_module_has_every_variant_for_every_gpu():
    """Code for sm_80 and sm_90, PTX for what comes after, and Hopper's own."""
    module = registry.cuda("cuda")
    if module is None:
        pytest.skip("minillm._cpp.cuda is not built: no nvcc at install time, or MINILLM_CUDA=0")
    for kernel in registry.OPS["attention"].kernels:
        if kernel.startswith("cuda/"):
            assert hasattr(module, f"attention_forward_{kernel.removeprefix('cuda/')}"), f"{kernel}: build again"
    if os.environ.get("MINILLM_CUDA_ARCHS"):
        pytest.skip("MINILLM_CUDA_ARCHS asks for others")
    listed = [subprocess.run([tool("cuobjdump"), flag, module.__file__], capture_output=True, text=True,
                             check=True).stdout
              for flag in ("-lelf", "-lptx")]
    assert {"sm_80", "sm_90", "sm_90a"} <= set(re.findall(r"sm_\w+", listed[0])) and "sm_90.ptx" in listed[1]


def test_the_modules_can_be_carried_to_a_bare_machine():
    """Which takes 64 MiB: the kernels and, to compare their instructions with, the emulator."""
    modules = [registry.cuda(name) for name in ("cuda", "cudasim")]
    if modules[0] is None:
        pytest.skip("minillm._cpp.cuda is not built: no nvcc at install time, or MINILLM_CUDA=0")
    if os.environ.get("MINILLM_CUDA_ARCHS"):
        pytest.skip("MINILLM_CUDA_ARCHS asks for others")
    assert sum(Path(module.__file__).stat().st_size for module in modules if module) < 64 << 20


def bounds():
    """{kernel: the number of threads in its __launch_bounds__, as it is written}."""
    pattern = r"__launch_bounds__\((.*?)\)\s+(\w+)\((?=.*?\{)"
    text = "\n".join(path.read_text() for path in sorted((CSRC / "cuda").rglob("*.cu*")))
    return {kernel: number(inside) for inside, kernel in re.findall(pattern, text)}


def number(text):
    """An expression without brackets around it, the type that a constant is of, and what comes after a comma."""
    return re.sub(r",\s*\d+$", "", re.sub(r"^\(+|\)+$", "", text)).rpartition("::")[2].strip("() ")


def test_kernels_are_launched_with_the_threads_that_they_are_compiled_for():
    """More would not start: the registers of each are shared out for so many."""
    bound, launched = bounds(), {}
    for path in sorted((CSRC / "cuda").rglob("*.cu*")):
        for call in re.findall(r"\blaunch\(([^;]*)\);", path.read_text()):
            parts = re.split(r",\s*(?![^<(]*[>)])", call)
            kernel = re.match(r"\w+", parts[0])[0]
            if kernel in bound:
                launched[kernel] = number(parts[2])
    assert launched and {name: bound[name] for name in launched} == launched


def test_kernels_repeat_their_launch_bounds_for_the_emulator():
    """Which checks what their first line says, since no C++ compiler keeps what the head does."""
    heads = re.compile(r"__launch_bounds__\((.*)\)\s+\w+\([^{;]*\{\n\s*(.*)\n")
    found = [match for path in sorted((CSRC / "cuda").rglob("*.cu*")) for match in heads.findall(path.read_text())]
    assert len(found) == len(bounds()) and all(line == f"LAUNCH_BOUNDS({said});" for said, line in found)


def test_info_says_whether_it_can_run():
    """Built or not, with or without a driver: importing it never fails."""
    state = info.cuda_state("cuda")
    if registry.cuda("cuda") is None:
        assert state.startswith("not built")
    else:
        told, _, lacking = state.partition("; no kernels of ")
        assert told in ("built, no NVIDIA driver", "built, no NVIDIA GPU",
                        "built, can be chosen with select, and trains a GPT-2 (train.backend)")
        assert set(lacking.split(", ")) <= {"", *registry.OPS}
