"""Compile a .cu file's functions into a shared library: for the emulator, or for a GPU with nvcc.

Both include the source (rewritten for the emulator, as it is for nvcc) and add for every bound function

    void minillm_call_0(void** a)

which copies the arrays to the device, calls the function with device pointers, waits, and copies back what it may
write: a[i] is the address of argument i on the host, and minillm_sizes tells their bytes before. A function that takes
host pointers gets them as they are. minillm_problem is what went wrong beside the values, such as a failed launch.
"""
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..binding import Function
from ..build import DoesNotCompile, run_compiler
from ..emulator import build
from .host import callable_functions, takes_host_pointers
from .launches import CannotRewrite
from .rewrite import rewrite_file

NVCC_FLAGS = "-O3 -std=c++17 -arch=native -lineinfo"
PLACES = ("/usr/local/cuda/bin/nvcc",)


def find_nvcc() -> str | None:
    """The path of nvcc: of MINILLM_NVCC, CUDA_HOME or PATH."""
    named = os.environ.get("MINILLM_NVCC")
    home = Path(os.environ.get("CUDA_HOME", "/none")) / "bin" / "nvcc"
    found = [place for place in (named, str(home), shutil.which("nvcc"), *PLACES) if place and Path(place).is_file()]
    return found[0] if found else None


def has_gpu() -> bool:
    """Is there a GPU's device file?"""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def compile_for_emulator(path: Path, functions: Sequence[Function], folder: Path, defines: Sequence[str] = (),
                         includes: Sequence[str] = ()) -> Path:
    """The shared library of the functions on the emulator. Raises DoesNotCompile with the compiler's words."""
    library = folder / f"lib{path.stem}.so"
    try:
        source = source_for_emulator(path, functions, folder, includes)
    except CannotRewrite as error:
        raise DoesNotCompile(str(error)) from None
    flags = ["-Dmain=minillm_main", *(f"-D{item}" for item in defines),
             *(f"-I{item}" for item in (path.resolve().parent, *includes))]
    build(source, library, flags)
    return library


def compile_for_gpu(path: Path, functions: Sequence[Function], folder: Path, defines: Sequence[str] = (),
                    includes: Sequence[str] = ()) -> Path | None:
    """The shared library for the GPU, or None where there is no GPU or no nvcc. Raises DoesNotCompile."""
    nvcc = find_nvcc()
    if not nvcc or not has_gpu():
        return None
    library = folder / f"lib{path.stem}.so"
    run_compiler(nvcc_command(nvcc, source_for_nvcc(path, functions, folder), library, path.resolve().parent, defines,
                              includes), path.name, f" to compile {path.name}")
    return library


def nvcc_command(nvcc: str, source: Path, library: Path, folder: Path, defines: Sequence[str],
                 includes: Sequence[str]) -> list[str]:
    return [nvcc, *shlex.split(NVCC_FLAGS), "-Xcompiler", "-fPIC", "-shared", "-Dmain=minillm_main",
            *(f"-D{item}" for item in defines), *(f"-I{item}" for item in (folder, *includes)), str(source), "-o",
            str(library)]


def source_for_nvcc(path: Path, functions: Sequence[Function], folder: Path) -> Path:
    """The source with its trampolines, as nvcc takes it."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    made = folder / "shim.cu"
    made.write_text(f'#include <cuda_runtime.h>\n#include "{path.resolve()}"\n' + additions(text, functions)
                    + trampolines(text, functions, emulated=False))
    return made


def source_for_emulator(path: Path, functions: Sequence[Function], folder: Path, includes: Sequence[str] = ()) -> Path:
    """The source rewritten, with its trampolines. Raises CannotRewrite for what the emulator does not know."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    rewritten = rewrite_file(path, folder, [Path(item) for item in includes], additions(text, functions))
    made = folder / "shim.cpp"
    made.write_text(f'#include <cuda_runtime.h>\n#include "{rewritten}"\n#line 1 "minillm"\n'
                    + trampolines(text, functions, emulated=True))
    return made


def additions(text: str, functions: Sequence[Function]) -> str:
    """Host functions for kernels that only a line says how to launch."""
    sources = callable_functions(text)[1]
    return "".join(f"\n{sources[function.name]}" for function in functions if function.name in sources) + "\n"


HEAD = """
#include <cstdio>
#include <cstring>
#include <vector>
static const size_t* minillm_bytes;
static unsigned minillm_calls;
static char minillm_text[512];
extern "C" const char* minillm_problem() { return minillm_text; }
extern "C" void minillm_sizes(const size_t* bytes) {
    minillm_bytes = bytes;
    minillm_text[0] = 0;
    minillm_next();
}
static void minillm_tell(const char* what, const char* more) {
    if (!minillm_text[0]) snprintf(minillm_text, sizeof minillm_text, "%s%s", what, more);
}
static void minillm_wait() {
    cudaError_t late = cudaDeviceSynchronize(), early = cudaGetLastError();
    if (late != cudaSuccess || early != cudaSuccess)
        minillm_tell("CUDA says: ", cudaGetErrorString(late != cudaSuccess ? late : early));
}
struct minillm_array {
    void *host, *device = nullptr;
    size_t bytes;
    bool written;
    const char* name;
    minillm_array(void* host, size_t bytes, bool written, const char* name)
        : host(host), bytes(bytes), written(written), name(name) {
        cudaMalloc(&device, bytes ? bytes : 1);
        minillm_name(device, name);
        cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice);
    }
    void back() {
        std::vector<char> seen(bytes);
        cudaMemcpy(seen.data(), device, bytes, cudaMemcpyDeviceToHost);
        if (written) memcpy(host, seen.data(), bytes);
        else if (memcmp(host, seen.data(), bytes)) minillm_tell(name, " was written; it is an input");
    }
    ~minillm_array() { cudaFree(device); }
};
"""
SEED = {     # another order of threads in each call; and what nobody asked for after the first
    True: "void minillm_next() { minillm_cuda_seed(minillm_calls++); }\n"
          "static void minillm_finish() { minillm_cuda_finish(); }\n"
          "static void minillm_name(const void* array, const char* name) { minillm_cuda_name(array, name); }\n",
    False: "void minillm_next() {}\nstatic void minillm_finish() {}\n"
           "static void minillm_name(const void*, const char*) {}\n"}


def trampolines(text: str, functions: Sequence[Function], emulated: bool) -> str:
    """What is added behind the source."""
    seed = ('#include "interface.h"\n' if emulated else "") + "static unsigned minillm_calls;\nstatic " + SEED[emulated]
    sources = callable_functions(text)[1]
    calls = [trampoline(i, function, takes_host_pointers(text, function.name),
                        "minillm_launch_" * (function.name in sources)) for i, function in enumerate(functions)]
    return seed + HEAD.replace("static unsigned minillm_calls;\n", "") + 'extern "C" {\n' + "\n".join(calls) + "\n}\n"


def trampoline(number: int, function: Function, on_host: bool, prefix: str) -> str:
    """void minillm_call_N(void** a) of one function."""
    results = {slot.ours for slot in function.results()}
    lines, arguments = [], []
    for i, slot in enumerate(function.slots):
        if not slot.theirs.pointer:
            arguments.append(f"*({slot.theirs.type}*)a[{i}]")
        elif on_host:
            arguments.append(f"({slot.theirs.type}*)a[{i}]")
        else:
            written = "true" if slot.kind == "own" or slot.ours in results and not slot.through else "false"
            lines.append(f'minillm_array d{i}(a[{i}], minillm_bytes[{i}], {written}, "{slot.theirs.name}");')
            arguments.append(f"({slot.theirs.type}*)d{i}.device")
    call = f"{prefix}{function.name}({', '.join(arguments)});"
    result = f"*(double*)a[{len(function.slots)}] = {call}" if function.returns else call
    back = [f"{line.split()[1].partition('(')[0]}.back();" for line in lines]
    steps = [*lines, result, "minillm_finish();", "minillm_wait();", *back]
    return f"void minillm_call_{number}(void** a) {{ {' '.join(steps)} }}"
