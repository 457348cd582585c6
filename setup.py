"""Builds the C++ and CUDA parts of minillm: every source file an object of its own, on all cores, and none twice.

A part that cannot be compiled is left out with a warning, and NumPy or Python does its work; `minillm info` says what
is built, what is not and why. Objects stay in build/, each with a stamp: a digest of the command, the compiler's
version and the content of all files that the compiler read. So nothing is ever stale, and times of files do not matter,
nor where pip keeps pybind11 today. What in minillm/_cpp is not up to date and not asked for is removed. The environment
says more:

MINILLM_BUILD     names of PARTS; best: the instruction set that suits this CPU; all; none. Where it is not set:
                  best,text,data, and all for a wheel that others get (by `python -m build`)
MINILLM_CUDA      1: build the GPU's kernels or fail; 0: do not; auto (the default): where there is a driver, and nvcc
MINILLM_NVCC      its path, if it is not in CUDA_HOME, PATH, /usr/local/cuda or the pip wheels
MINILLM_CUDA_ARCHS=80,90   the GPUs that get code of their own (newer ones compile the last one's PTX when they load it;
                  the Hopper kernel is always for 90a)
CXX or CC, CXXFLAGS, LDFLAGS; and ccache is used where it is installed
"""
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fwrapv", "-pthread", "-fopenmp", "-DNDEBUG", "-Wall",
         "-g0"]
FLOATS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {"scalar": []} | {
    "avx2": ["-mavx2", "-mfma"], "avx512": AVX512, "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
} if platform.machine() in ("x86_64", "AMD64") else {"scalar": []}
SHARED = "csrc/python/bindings.cpp"
CUDA = [*(f"csrc/cuda/{room}/*.cpp" for room in ("attention", "gpu", "ops")), "csrc/python/cuda.cpp",
        "csrc/python/device_*.cpp", SHARED]
PARTS = {       # extension minillm._cpp.NAME: its source files and flags, those that take longest first
    "cuda": ([*CUDA, "csrc/cuda/**/*.cu"], []),
    "cudasim": ([*CUDA, "csrc/cuda/emulator/*.cpp", "csrc/cuda/ops/*.cu"], ["-O2", "-DEMULATOR", "-Wno-psabi"]),
    "text": (["csrc/text/*.cpp", "csrc/python/text*.cpp", SHARED], []),
    "data": (["csrc/data/*.cpp", "csrc/python/data.cpp", SHARED], []),
} | {isa: (["csrc/cpu/**/*.cpp", "csrc/python/module.cpp", SHARED], FLOATS + flags)
     for isa, flags in INSTRUCTION_SETS.items()}

ENDING = sysconfig.get_config_var("EXT_SUFFIX")
# relative: no result names the folder it was made in
BUILD = Path("build", "minillm" + ENDING.removesuffix(".so"))
PYBIND11 = BUILD / f"pybind11-{pybind11.__version__}"
CC = re.sub(r"clang|gcc|\bcc\b", lambda found: {"clang": "clang++"}.get(found[0], "g++"), os.environ.get("CC", ""))
CXX = shlex.split(os.environ.get("CXX") or CC or "g++")
CXXFLAGS = shlex.split(os.environ.get("CXXFLAGS", ""))
# before a compiler reads
SOURCES = {str(path): path.read_bytes() for path in Path("csrc").rglob("*") if path.is_file()}
IN_PLACE = "editable_wheel" in sys.argv or "--inplace" in sys.argv
os.environ.setdefault("SOURCE_DATE_EPOCH", "1767225600")            # of the files in a wheel, which is always the same


def wanted():
    """The names of the parts to build."""
    # pip's is for this machine
    for_others = "bdist_wheel" in sys.argv and "PIP_BUILD_TRACKER" not in os.environ
    said, cuda = os.environ.get("MINILLM_BUILD"), os.environ.get("MINILLM_CUDA", "auto")
    names = said or ("all" if for_others else "best,text,data")
    best = runpy.run_path("minillm/kernels/load.py")["best"]()
    names = names.replace("all", ",".join(set(PARTS) - {"cuda"})).replace("best", best).replace("none", "").split(",")
    if unknown := set(names) - {*PARTS, ""}:
        raise SystemExit(f"MINILLM_BUILD: no part {', '.join(unknown)}: expected all, none, best, {', '.join(PARTS)}")
    if cuda not in ("auto", "0", "1"):
        raise SystemExit(f"MINILLM_CUDA must be auto, 0 or 1: got {cuda!r}")
    if cuda == "1" and not find_nvcc():
        raise SystemExit("MINILLM_CUDA=1, but there is no nvcc: set MINILLM_NVCC or CUDA_HOME, or pip install "
                         "nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl")
    gpu = "cuda" in names or said in (None, "all") and has_driver()
    with_cuda = cuda == "1" or cuda == "auto" and gpu and find_nvcc()
    return [name for name in PARTS if (with_cuda if name == "cuda" else name in names)]


def has_driver():
    """An nvcc alone is no reason to compile for a GPU, which takes minutes."""
    try:
        return bool(Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
                    or ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return False


def find_nvcc():
    """Its path, or None."""
    wheels = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/nvcc"))
    places = [os.environ.get("MINILLM_NVCC"), Path(os.environ.get("CUDA_HOME", "/none")) / "bin" / "nvcc",
              shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc", *wheels]
    return next((str(place) for place in places if place and os.access(place, os.X_OK)), None)


def is_binding(source):
    """Bindings are linked last: of a function that others have, too, theirs is the one compiled for speed."""
    return source.startswith("csrc/python/")


def compilations(name):
    """[(object, the command that compiles it)] of a part. Bindings that are the same for every part are compiled
    once."""
    sources = sorted(str(path) for pattern in PARTS[name][0] for path in Path().glob(pattern))
    includes = ["-Icsrc", "-isystem", str(PYBIND11), "-isystem", sysconfig.get_paths()["include"]]
    for source in sorted(sources, key=is_binding):
        part = "text" if source == SHARED else name
        made = f"{BUILD / part / source}.o"
        fast = ["-O1"] * is_binding(source)             # a third less time for what only hands arguments on
        yield made, [*compiler(part, source), *fast, f"-DMODULE={part}", *includes, "-MMD", "-MF", f"{made}.d",
                     *["-x", "c++"] * (name != "cuda" and source.endswith(".cu")), "-c", source, "-o", made]


def linking(name):
    """(extension, the command that links it, its objects) of a part."""
    made, objects = str(BUILD / name) + ENDING, [made for made, _ in compilations(name)]
    macos = ["-undefined", "dynamic_lookup"] * (sys.platform == "darwin")
    system = ["-cudart=static"] if name == "cuda" else macos
    return made, [*compiler(name), "-shared", *objects, *system, *shlex.split(os.environ.get("LDFLAGS", "")), "-o",
                  made], objects


def compiler(name, source=""):
    """The compiler of a part, with its flags."""
    if name != "cuda":
        return [*CXX, *(flag for flag in FLAGS if flag != "-fopenmp" or openmp()), *PARTS[name][1], *CXXFLAGS]
    nvcc = find_nvcc() or "nvcc"
    archs = ["90a"] if "wgmma" in source else os.environ.get("MINILLM_CUDA_ARCHS", "80,90").split(",")
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    root = Path(nvcc).resolve().parent.parent
    wheels = root.parent.glob("*/include") if root.parent.name == "nvidia" else []             # pip's are side by side
    return [nvcc, "-std=c++17", "-O3", f"-Xcompiler=-fPIC,-fvisibility=hidden,-g0{',-fopenmp' * openmp()}",
            "--threads=0", *codes, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}",
            *(f"-I{path}" for path in sorted(wheels)),
            *(f"-L{root / folder}" for folder in ("lib64", "lib") if (root / folder).is_dir())]


@cache
def openmp():
    """Does the compiler have it? Without it the kernels use one thread."""
    probe = BUILD / "openmp.cpp"
    probe.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
    try:
        run([*CXX, "-fopenmp", str(probe), "-o", str(probe.with_suffix(".out"))])
    except CompileError as error:
        say(f"{CXX[0]} has no OpenMP, so the kernels will use one thread: {error}\n")
        return False
    return True


@cache
def version(*program):
    return run([*program, "--version"])


def run(command, by=()):
    """What the program said."""
    try:
        done = subprocess.run([*by, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise CompileError(f"{command[0]} failed\n{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def say(text):
    """For `pip install -v`, and for the person at the terminal, from whom pip keeps it."""
    print(text.rstrip(), flush=True)
    try:
        if not sys.stdout.isatty():
            Path("/dev/tty").write_text(f"\r\x1b[K{text}")
    except OSError:
        pass


def up_to_date(made, command, inputs=None):
    """Was it made by this command from files with the content that they have now?"""
    try:
        return Path(made).exists() and Path(f"{made}.stamp").read_text() == stamp(made, command, inputs)
    except (OSError, CompileError):
        return False


def stamp(made, command, inputs=None):
    """The digest. The compiler wrote down what it read, but for the headers of the system,
    of Python and of pybind11."""
    digest = hashlib.sha256("\0".join([*command, version(command[0]), version(*CXX), sys.version]).encode())
    for file in inputs or Path(f"{made}.d").read_text().split(":", 1)[1].replace("\\\n", " ").split():
        digest.update(f"\0{file}\0".encode() + (SOURCES.get(file) or Path(file).read_bytes()))
    return digest.hexdigest()


def make(failed, name, made, command, inputs=None):
    """Run the command, unless another one of this part has failed."""
    if name in failed:
        return
    try:
        Path(made).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{made}.stamp").unlink(missing_ok=True)
        # is there such a compiler? ccache does not say it well
        version(command[0])
        print(run(command, ["ccache"] if not inputs and shutil.which("ccache") else []), end="")
        Path(f"{made}.stamp").write_text(stamp(made, command, inputs))
    except CompileError as error:
        failed[name] = str(error)


def copy_pybind11():
    """To a place that stays, since pip's lies in another folder each time, which would be in every command."""
    if not PYBIND11.exists():
        shutil.copytree(pybind11.get_include(), f"{PYBIND11}.new", dirs_exist_ok=True)
        Path(f"{PYBIND11}.new").rename(PYBIND11)


def build(names, force):
    """Compile and link the parts: {part: why it could not be built}."""
    copy_pybind11()
    units = {made: (name, made, command) for name in names for made, command in compilations(name)}
    units = [unit for unit in units.values() if force or not up_to_date(*unit[1:])]
    failed, pool = {}, ThreadPoolExecutor(os.cpu_count())
    try:
        running = {pool.submit(make, failed, *unit): unit for unit in units}
        for count, future in enumerate(as_completed(running), 1):
            future.result()
            name, made, _ = running[future]
            say(f"[{count}/{len(units)}] {made[made.index('csrc'):-2]} ({name})")
    finally:
        pool.shutdown(cancel_futures=True)                          # Ctrl-C ends it
    for name in names:
        if not up_to_date(*linking(name)):
            make(failed, name, *linking(name))
    return failed


class Build(build_ext):
    """setuptools' own, but for the way an extension is made."""

    def build_extensions(self):
        names = [ext.name.rpartition(".")[2] for ext in self.extensions]
        folder = Path("minillm/_cpp" if IN_PLACE else f"{self.build_lib}/minillm/_cpp")
        with open(BUILD / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            failed = build(names, self.force)
            for name in set(names) - set(failed):
                target = Path(self.get_ext_fullpath(f"minillm._cpp.{name}"))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(linking(name)[0], target)
        for name, problem in failed.items():
            log = (BUILD / f"{name}.log").absolute()
            log.write_text(problem)
            failed[name] = f"{problem.splitlines()[0]}, see {log}"
            say(f"WARNING: minillm._cpp.{name} is not built: {failed[name]}\n")
        if failed:
            (folder / "failed.json").write_text(json.dumps(failed))      # for `minillm info`
        if "cuda" in failed and os.environ.get("MINILLM_CUDA") == "1":
            raise CompileError(failed["cuda"])


def remove_stale():
    """The extensions in minillm/_cpp that this build would not make like that."""
    Path("minillm/_cpp/failed.json").unlink(missing_ok=True)
    for extension in Path("minillm/_cpp").glob(f"*{ENDING}"):
        name = extension.name.removesuffix(ENDING)
        fresh = name in PARTS and all(up_to_date(*unit) for unit in (*compilations(name), linking(name)))
        if not fresh or extension.read_bytes() != Path(linking(name)[0]).read_bytes():
            extension.unlink()


if __name__ == "__main__":
    BUILD.mkdir(parents=True, exist_ok=True)
    # setuptools puts all that it finds there into a wheel
    for folder in Path("build").glob("lib*"):
        shutil.rmtree(folder)
    if IN_PLACE:
        remove_stale()
    setup(ext_modules=[Extension(f"minillm._cpp.{name}", [], optional=True) for name in wanted()],
          cmdclass={"build_ext": Build})
