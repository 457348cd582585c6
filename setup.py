"""Builds the C++ kernels: the same sources once per instruction set, each an extension of its own.

Kernels are optional. Without a compiler the install goes on with a warning, and minillm runs on NumPy alone
(`minillm info` says so). MINILLM_BUILD=avx512 (or a list, by commas) builds only some; MINILLM_BUILD=none builds nothing.
MINILLM_SANITIZE=address (with undefined) or thread builds for the sanitizers; tests/sanitize.sh uses it.
"""
import os
import platform
from pathlib import Path

import pybind11
from setuptools import Extension, setup

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


def extensions():
    wanted = os.environ.get("MINILLM_BUILD", ",".join([*INSTRUCTION_SETS, "text", "cudasim"])).split(",")
    headers = sorted(str(path) for path in Path("csrc").glob("*.*"))
    return [Extension(f"minillm._cpp.{isa}", [f"csrc/isa_{isa}.cpp"], language="c++", optional=True, depends=headers,
                      include_dirs=[pybind11.get_include()], extra_compile_args=FLAGS + flags + SANITIZE,
                      extra_link_args=["-fopenmp"] + SANITIZE)
            for isa, flags in INSTRUCTION_SETS.items() if isa in wanted] + [cudasim()] * ("cudasim" in wanted) + [
                text()] * ("text" in wanted)


def text():
    """The tokenizer: one build for all (csrc/text/module.cpp says why), and none again when a kernel changes."""
    return Extension("minillm._cpp.text", ["csrc/text/module.cpp"], language="c++", optional=True,
                     depends=sorted(str(path) for path in Path("csrc/text").glob("*.*")),
                     include_dirs=[pybind11.get_include()], extra_link_args=["-pthread"] + SANITIZE,
                     extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-pthread", "-Wall", "-g0"] + SANITIZE)


def cudasim():
    """The CUDA kernels on the emulator (csrc/cuda/emulator.h): slow, and the way to test them without a GPU."""
    return Extension("minillm._cudasim", ["csrc/cuda/cudasim.cpp"], language="c++", optional=True,
                     depends=sorted(str(path) for path in Path("csrc/cuda").glob("*.*")),
                     include_dirs=[pybind11.get_include()],
                     extra_compile_args=["-O2", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas", "-g0"])


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
