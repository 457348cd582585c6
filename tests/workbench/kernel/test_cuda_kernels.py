"""minillm kernel check my.cu, as a user calls it: which functions are called and how, what is said, and nvcc's turn."""
import json
import shutil

import numpy as np
import pytest

from minillm.__main__ import main
from minillm.kernels.own.build import functions_of
from minillm.kernels.own.cuda import compile as cuda_compile
from minillm.kernels.own.cuda.host import functions_in
from minillm.ops.table import OPS, Dims
from minillm.workbench.kernel.sizes import PRECISIONS, Precision, fitted, read_precision, read_sizes
from minillm.workbench.kernel.workload import allowance

pytest.importorskip("cffi")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="the emulator needs g++")
KERNEL = """#include <cuda_runtime.h>
__global__ void relu2(float* out, const float* x, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) out[i] = x[i] != x[i] ? x[i] : x[i] > 0.0f ? x[i] * x[i] : 0.0f;
}
"""
HOST = """void relu_squared_forward(float* out, const float* x, int N) {
    relu2<<<(N + 127) / 128, 128>>>(out, x, N);
    if (cudaGetLastError() != cudaSuccess) __builtin_trap();
}
"""


def written(folder, text):
    (folder / "my.cu").write_text(text)
    return folder / "my.cu"


def checked(path, capsys, code, op="relu_squared"):
    assert main(["kernel", "check", str(path), "--op", op, "--json", "--seed", "1"]) == code
    return json.loads(capsys.readouterr().out)


@needs_compiler
def test_a_right_kernel_passes_and_a_wrong_one_is_told_its_line(tmp_path, capsys):
    found = checked(written(tmp_path, KERNEL + HOST), capsys, 0)
    assert [row["check"] for row in found] == ["values", "sizes", "hard values", "fresh values",
                                               "leaves nothing behind"]
    (row,) = checked(written(tmp_path, KERNEL.replace("i < N", "i <= N") + HOST), capsys, 1)
    assert row["check"] == "out of bounds" and row["message"].startswith("my.cu:4: ") and not row["passed"]
    assert "of `" in row["message"], "the argument's name"


@needs_compiler
def test_a_kernel_alone_needs_a_line_that_launches_it(tmp_path, capsys):
    assert main(["kernel", "check", str(written(tmp_path, KERNEL)), "--op", "relu_squared"]) == 2
    assert "// launch: relu2<<<(N + 255) / 256, 256>>>" in capsys.readouterr().err
    path = written(tmp_path, "// launch: relu2<<<(N + 63) / 64, 64>>>\n" + KERNEL)
    assert all(row["passed"] for row in checked(path, capsys, 0))


@needs_compiler
def test_the_compilers_words_name_the_users_line(tmp_path, capsys):
    (row,) = checked(written(tmp_path, KERNEL + HOST.replace("128>>>", "128, nothing>>>")), capsys, 1)
    assert row["check"] == "compiles" and "my.cu:7:" in row["message"]


def test_libraries_are_one_clear_error(tmp_path, capsys):
    (row,) = checked(written(tmp_path, "#include <cublas_v2.h>\n" + KERNEL + HOST), capsys, 1)
    assert row["check"] == "compiles" and row["message"].startswith("my.cu, line 1: cuBLAS")


def test_a_file_that_only_calls_a_library_is_told_so(tmp_path):
    host = "void linear_forward(float* out, const float* x, int B, int T, int C, int OC) { cublasSgemm(h, out, x); }"
    with pytest.raises(ValueError, match=r"my\.cu, line 1: cuBLAS"):
        functions_of(written(tmp_path, "#include <cublas_v2.h>\n" + host), "linear")


def test_a_template_that_launches_counts(tmp_path):
    through = ("template <class T>\nvoid launch(T* out, const T* x, int N, cudaStream_t s = 0) {\n"
               "    relu2<<<1, 2, 0, s>>>(out, x, N);\n}\n")
    host = "void relu_squared_forward(float* out, const float* x, int N) { launch<float>(out, x, N); }\n"
    found = functions_of(written(tmp_path, KERNEL + through + host), "relu_squared")
    assert [function.name for function in found] == ["relu_squared_forward"]


@pytest.mark.parametrize("helper, call, copies", [
    ("float* up(const float* h, size_t n)", "up(x, N)", True),
    ("float* up(const float* h, size_t n)", "up(mine, N)", False),
    ("template <class T> T* up(const T* h, int n)", "up<float>(x, N)", True),
])
def test_a_function_that_copies_its_argument_by_another_takes_host_pointers(helper, call, copies):
    found = functions_in(helper + " { cudaMemcpy(d, h, n, cudaMemcpyHostToDevice); return d; }\n"
                         f"void f(float* out, const float* x, int N) {{ float* d = {call}; k<<<1, 2>>>(out, d); }}")
    assert found["f"].copies == copies and found["f"].launches


def test_functions_that_launch_are_called_and_others_are_not(tmp_path):
    cpu = "void relu_squared_forward_cpu(float* out, const float* x, int N) { }\n"
    through = "void relu_squared_forward2(float* out, const float* x, int N) { relu_squared_forward(out, x, N); }\n"
    chooses = HOST.replace("relu_squared_forward(", "relu_squared_forward3(int kernel_num, ")
    macro = ("#define GO(k, n, ...) k<<<n, 32>>>(__VA_ARGS__)\n"
             "void relu_squared_forward4(float* out, float* x, int N) { GO(relu2, N, out, x, N); }\n")
    found = functions_of(written(tmp_path, KERNEL + HOST + cpu + through + chooses + macro), "relu_squared")
    assert [function.name for function in found] == ["relu_squared_forward", "relu_squared_forward2",
                                                     "relu_squared_forward4"]


@pytest.mark.parametrize("body, copies", [
    ("cudaMemcpy(d, x, N, cudaMemcpyHostToDevice);", True), ("cudaMemcpy(d, h, N, cudaMemcpyHostToDevice);", False),
    ("cudaMemcpy(out, x, N, cudaMemcpyDeviceToDevice);", False),
    ("cudaMemcpyAsync(d + 1, x + 1, N, cudaMemcpyHostToDevice, s);", True),
])
def test_a_function_that_copies_its_argument_takes_host_pointers(body, copies):
    found = functions_in("void f(float* out, const float* x, int N) { " + body + " k<<<1, 2>>>(out); }")
    assert found["f"].copies == copies and found["f"].launches


def test_nvcc_is_given_the_source_as_it_is(tmp_path, monkeypatch):
    """With a GPU and nvcc, here one that only writes down how it was called."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/called"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv("MINILLM_NVCC", str(nvcc))
    monkeypatch.setattr(cuda_compile, "has_gpu", lambda: True)
    path = written(tmp_path, KERNEL + HOST)
    functions = functions_of(path, "relu_squared")
    library = cuda_compile.compile_for_gpu(path, functions, tmp_path, ["X=1"], ["include"])
    called = (tmp_path / "called").read_text().split()
    assert called[-3:] == [str(tmp_path / "shim.cu"), "-o", str(library)]
    assert {"-shared", "-DX=1", "-Iinclude", f"-I{tmp_path}", "-arch=native"} <= set(called)
    source = (tmp_path / "shim.cu").read_text()
    assert f'#include "{path}"' in source and "minillm_cuda" not in source and "void minillm_call_0(void** a)" in source
    monkeypatch.setattr(cuda_compile, "has_gpu", lambda: False)
    assert cuda_compile.compile_for_gpu(path, functions, tmp_path) is None


def test_sizes_that_a_kernel_is_written_for():
    rules = read_sizes("// sizes: C % 4 == 0, T <= 8\n  // sizes: HS == 64\nint sizes; // sizes of all\n")
    assert fitted(Dims(B=1, T=33, C=7, NH=3, V=5), rules) == Dims(B=1, T=8, C=192, NH=3, V=5)
    assert fitted(Dims(B=1, T=2, C=9, NH=3, V=5), read_sizes("// sizes: N % 4 == 0")).C == 12
    assert fitted(Dims(B=1, T=2, C=9, NH=3, V=5), read_sizes("// sizes: OC <= 24, OC % 3 == 0")).C == 6
    assert read_sizes("// nothing\n") == () and read_precision("// precision: half\n") == (2.0 ** -10, 2.0 ** -25)
    with pytest.raises(ValueError, match="takes rules"):
        read_sizes("// sizes: D % 4 == 0")
    with pytest.raises(ValueError, match="half, bf16, tf32"):
        read_precision("// precision: quarter\n")


def test_rounding_below_the_smallest_numbers_is_allowed():
    """A half moves 1e-8 by up to 2^-25; float32's own allowance is far smaller."""
    exact = np.full(4, 1e-8)
    half, bf16, own = (allowance(exact, [exact], 1, "float32", 0.0, precision).min()
                       for precision in (PRECISIONS["half"], PRECISIONS["bf16"], Precision(2.0 ** -23)))
    assert half >= 2.0 ** -25 and own < 1e-13 and bf16 < 2.0 ** -25
    assert allowance(0 * exact, [0 * exact], 1, "float32", 0.0, PRECISIONS["bf16"]).min() >= 2.0 ** -133


@pytest.mark.parametrize("op", OPS)
def test_a_new_file_launches_what_it_declares(tmp_path, op):
    path = tmp_path / "my.cu"
    assert main(["kernel", "new", op, "--lang", "cu", "-o", str(path)]) == 0
    assert {function.op for function in functions_of(path, op)} == {op}
    assert all(len(line) <= 120 for line in path.read_text().splitlines() if not line.startswith("//"))


def test_a_new_files_ending_tells_its_language(tmp_path):
    assert main(["kernel", "new", "gelu", "-o", str(tmp_path / "own.cu")]) == 0
    assert "__global__" in (tmp_path / "own.cu").read_text()
    assert main(["kernel", "new", "gelu", "-o", str(tmp_path / "own.c")]) == 0
    assert "__global__" not in (tmp_path / "own.c").read_text()


@needs_compiler
def test_a_new_file_compiles_and_fails_the_check(tmp_path, capsys):
    path = tmp_path / "my.cu"
    assert main(["kernel", "new", "rmsnorm", "--lang", "cu", "-o", str(path)]) == 0
    capsys.readouterr()
    found = checked(path, capsys, 1, "rmsnorm")
    assert {row["check"] for row in found if not row["passed"]} == {"values"}


def test_bench_times_no_cuda(tmp_path, capsys):
    assert main(["kernel", "bench", str(written(tmp_path, KERNEL + HOST)), "--op", "relu_squared"]) == 2
    assert "emulator tells nothing" in capsys.readouterr().err
