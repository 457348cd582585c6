"""Builds the C++ kernels: the same sources once per instruction set, each an extension of its own.

Kernels are optional. Without a compiler the install goes on with a warning, and minillm runs on NumPy alone
(`minillm info` says so). MINILLM_BUILD=avx512 (or a list, by commas) builds only some; MINILLM_BUILD=none builds nothing.
MINILLM_CUDA=0 leaves the GPU's kernels out, 1 insists on them, auto (the default) builds them where there is an nvcc:
MINILLM_NVCC, or that of CUDA_HOME, PATH, /usr/local/cuda or the pip wheels. MINILLM_CUDA_ARCHS=80,90 names the GPUs that
get code of their own (newer ones compile the last one's PTX when they load it; the Hopper kernel is always for 90a).
MINILLM_SANITIZE=address (with undefined) or thread builds for the sanitizers; tests/sanitize.sh uses it.
"""
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden",
         "-fopenmp", "-Wall", "-g0"]
SANITIZE = {"address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g"],
            "thread": ["-fsanitize=thread", "-O1", "-g"], "": []}[os.environ.get("MINILLM_SANITIZE", "")]
INSTRUCTION_SETS = {"scalar": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS |= {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
    }
    INSTRUCTION_SETS["amx"] = [*INSTRUCTION_SETS["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]

CUDA_BINDINGS = ["csrc/cuda/attention/bindings.cpp", "csrc/python/cuda.cpp", "csrc/python/bindings.cpp"]


def extensions():
    wanted = os.environ.get("MINILLM_BUILD", ",".join([*INSTRUCTION_SETS, "text", "data", "cudasim"])).split(",")
    sources = sorted(map(str, Path("csrc/cpu").rglob("*.cpp"))) + ["csrc/python/bindings.cpp", "csrc/python/module.cpp"]
    headers = sorted(str(path) for room in ("cpu", "python") for path in Path("csrc", room).rglob("*.h"))
    return [Extension(f"minillm._cpp.{isa}", sources, language="c++", optional=True, depends=headers,
                      include_dirs=["csrc", pybind11.get_include()], extra_link_args=["-fopenmp"] + SANITIZE,
                      extra_compile_args=[*FLAGS, *flags, f"-DMODULE={isa}", *SANITIZE])
            for isa, flags in INSTRUCTION_SETS.items() if isa in wanted] + [cudasim()] * ("cudasim" in wanted) + [
                text()] * ("text" in wanted) + [data()] * ("data" in wanted)


def text():
    """The tokenizer: one build for all (csrc/python/text.cpp says why), and none again when a kernel changes."""
    return Extension("minillm._cpp.text", ["csrc/python/text.cpp", "csrc/text/encoder.cpp", "csrc/text/counter.cpp"],
                     language="c++", optional=True,
                     depends=sorted(str(path) for path in [*Path("csrc/text").glob("*.*"), Path("csrc/python/texts.h")]),
                     include_dirs=["csrc", pybind11.get_include()], extra_link_args=["-pthread"] + SANITIZE,
                     extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-pthread", "-Wall", "-g0"] + SANITIZE)


def data():
    """Deduplication: one build, which chooses its instruction set at run time (csrc/python/data.cpp)."""
    return Extension("minillm._cpp.data", ["csrc/python/data.cpp", "csrc/data/minhash.cpp"], language="c++", optional=True,
                     depends=sorted(str(path) for folder in ("data", "text", "python") for path in
                                    Path("csrc", folder).glob("*.h")),
                     include_dirs=["csrc", pybind11.get_include()], extra_link_args=["-pthread"] + SANITIZE,
                     extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-pthread", "-Wall", "-g0"] + SANITIZE)


def cudasim():
    """The CUDA kernels on the emulator (csrc/cuda/emulator): slow, and the way to test them without a GPU."""
    return Extension("minillm._cpp.cudasim", [*CUDA_BINDINGS, "csrc/cuda/emulator/kernels.cpp", "csrc/cuda/emulator/device.cpp"],
                     language="c++", optional=True,
                     depends=sorted(str(path) for path in Path("csrc").rglob("*.*")),
                     include_dirs=["csrc", pybind11.get_include()], define_macros=[("EMULATOR", None), ("MODULE", "cudasim")],
                     extra_compile_args=["-O2", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas",
                                         "-Wno-psabi", "-g0"])


def cuda():
    """[the CUDA kernels], or [] without nvcc. The result needs no CUDA library, and loads without a driver."""
    wanted = os.environ.get("MINILLM_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"MINILLM_CUDA must be auto, 0 or 1: got {wanted!r}")
    if wanted == "0" or (wanted == "auto" and not find_nvcc()):
        return []
    if not find_nvcc():
        raise SystemExit("MINILLM_CUDA=1, but there is no nvcc: set MINILLM_NVCC or CUDA_HOME, or pip install nvidia-cuda-nvcc "
                         "nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm")
    return [Extension("minillm._cpp.cuda", [*CUDA_BINDINGS, "csrc/cuda/attention/launch.cu", "csrc/cuda/attention/launch_wgmma.cu",
                                            "csrc/cuda/gpu/device.cu"], language="c++", optional=wanted == "auto",
                      depends=sorted(str(path) for path in Path("csrc").rglob("*.*")))]


def find_nvcc():
    """Its path, or None."""
    wheels = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/nvcc"))
    places = [os.environ.get("MINILLM_NVCC"), Path(os.environ.get("CUDA_HOME", "/none")) / "bin" / "nvcc", shutil.which("nvcc"),
              "/usr/local/cuda/bin/nvcc", *wheels]
    return next((str(place) for place in places if place and os.access(place, os.X_OK)), None)


def nvcc_commands(target, build):
    """Two commands: the Hopper file for sm_90a alone; then the rest, and link. PTX of the newest architecture named is kept
    for GPUs that come after it."""
    nvcc = find_nvcc()
    archs = os.environ.get("MINILLM_CUDA_ARCHS", "80,90").split(",")
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    root = Path(nvcc).resolve().parent.parent
    wheels = root.parent.glob("*/include") if root.parent.name == "nvidia" else []          # pip's are side by side
    includes = [sysconfig.get_paths()["include"], pybind11.get_include(), *map(str, wheels)]
    libraries = [str(root / name) for name in ("lib64", "lib") if (root / name).is_dir()]
    common = [nvcc, "-std=c++17", "-O3", "-Icsrc", "-DMODULE=cuda", "-Xcompiler=-fPIC,-fvisibility=hidden,-g0", *(f"-I{path}" for path in includes)]
    hopper = str(Path(build) / "launch_wgmma.o")
    return [[*common, "-c", "-gencode=arch=compute_90a,code=sm_90a", "csrc/cuda/attention/launch_wgmma.cu", "-o", hopper],
            [*common, "-shared", "-cudart=static", "--threads=0", *codes, *(f"-L{path}" for path in libraries),
             "csrc/cuda/attention/launch.cu", "csrc/cuda/gpu/device.cu", *CUDA_BINDINGS, hopper, "-o", target]]


class BuildExtension(build_ext):
    """setuptools' own, but minillm._cpp.cuda is made by nvcc."""

    def build_extension(self, ext):
        if ext.name != "minillm._cpp.cuda":
            return super().build_extension(ext)
        target = self.get_ext_fullpath(ext.name)
        if not (self.force or newer_group([*ext.sources, *ext.depends], target, "newer")):
            return None
        for folder in (Path(target).parent, Path(self.build_temp)):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            for command in nvcc_commands(target, self.build_temp):
                subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"nvcc failed: {error}") from error


setup(ext_modules=extensions() + cuda(), cmdclass={"build_ext": BuildExtension},
      options={"build_ext": {"parallel": os.cpu_count()}})
