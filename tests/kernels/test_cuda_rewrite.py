"""CUDA C++ becomes C++: launches, shared memory and inline PTX are rewritten, all else is left alone, line by line."""
import pytest

from minillm.kernels.own.cuda.launches import CannotRewrite
from minillm.kernels.own.cuda.rewrite import rewrite_file, rewrite_text
from minillm.kernels.own.cuda.tokens import tokens_of


def launched(text):
    """What a launch in a function's body becomes, without what never changes."""
    made = rewrite_text(f"void f() {{ {text} }}").removeprefix("void f() { ").removesuffix(" }")
    return made.replace("::minillm_cuda::launch(__FILE__, __LINE__, ", "L(").replace("[=](auto... emu_a) ", "").replace(
        "emu_a...", "a")


@pytest.mark.parametrize("text, made", [
    ("k<<<1, 2>>>(x);", 'L("k", 1, 2, 0, 0, { k(a); }, x);'),
    ("k<<<1, 2>>>();", 'L("k", 1, 2, 0, 0, { k(a); });'),
    ("k<<<g, b, s, st>>>(x, y + 1);", 'L("k", g, b, s, st, { k(a); }, x, y + 1);'),
    ("k<<<g, b, n * sizeof(float)>>>(x);", 'L("k", g, b, n * sizeof(float), 0, { k(a); }, x);'),
    ("k<float, 4><<<1, 2>>>(x);", 'L("k<float, 4>", 1, 2, 0, 0, { k<float, 4>(a); }, x);'),
    ("ns::k<(a > b)><<<1, 2>>>(x);", 'L("ns::k<(a > b)>", 1, 2, 0, 0, { ns::k<(a > b)>(a); }, x);'),
    ("k<P<int, P<int, int>>><<<1, 2>>>(x);",
     'L("k<P<int, P<int, int>>>", 1, 2, 0, 0, { k<P<int, P<int, int>>>(a); }, x);'),
    ("k<<<dim3(a, b), dim3(c >> 1, d)>>>(x);", 'L("k", dim3(a, b), dim3(c >> 1, d), 0, 0, { k(a); }, x);'),
    ("k<<<f(1, {2, 3}), 4>>>(h(x, g(y)));", 'L("k", f(1, {2, 3}), 4, 0, 0, { k(a); }, h(x, g(y)));'),
    ("if (a) k<<<1, 2>>>(x); else k2<<<1, 2>>>(y);",
     'if (a) L("k", 1, 2, 0, 0, { k(a); }, x); else L("k2", 1, 2, 0, 0, { k2(a); }, y);'),
    ("return k<<<1, 2>>>(x);", 'return L("k", 1, 2, 0, 0, { k(a); }, x);'),
    ("table[i]<<<1, 2>>>(x);", 'L("table[i]", 1, 2, 0, 0, { table[i](a); }, x);'),
    ("(*k)<<<1, 2>>>(x);", 'L("(*k)", 1, 2, 0, 0, { (*k)(a); }, x);'),
    ("k << <1, 2 >> >(x);", 'L("k", 1, 2 , 0, 0, { k(a); }, x);'),
    ("k<<<1, 2>>>(x, NULL);", 'L("k", 1, 2, 0, 0, { k(a); }, x, nullptr);'),
    ("CHECK((k<<<1, 2>>>(x), 0));", 'CHECK((L("k", 1, 2, 0, 0, { k(a); }, x), 0));'),
    ("ceil_div<<<1, a < b ? 1 : 2>>>(x);", 'L("ceil_div", 1, a < b ? 1 : 2, 0, 0, { ceil_div(a); }, x);'),
])
def test_launches(text, made):
    assert launched(text) == made


@pytest.mark.parametrize("text", [
    "// k<<<1, 2>>>(x)\n", "/* k<<<1,\n2>>>(x) */", 's = "k<<<1, 2>>>(x)";', "s = R\"x(k<<<1, 2>>>(\")x\";", "c = '<';",
    "y = a << 3 >> 2; if (a < b && c > d) ;", "std::vector<std::array<std::pair<int, int>, 2>> v;",
    'f("__shared__ float x;", \'"\', "\\"<<<");', "#error k<<<1, 2>>>\n", "int x = 1'000'000; double y = 1e-5f;",
    "template <int N = (1 << 3)> void g();", "void g(__shared__ float* p);",
])
def test_what_is_no_cuda_is_left_alone(text):
    assert rewrite_text(text) == text
    assert "".join(token.text for token in tokens_of(text)) == text


@pytest.mark.parametrize("text, made", [
    ("__shared__ float x[32][33], n;",
     "typedef  float emu_T_x[32][33], emu_T_n; MINILLM_SHARED(x, emu_T_x); MINILLM_SHARED(n, emu_T_n);"),
    ("extern __shared__ float s[];", "typedef   float emu_T_s; MINILLM_DYNAMIC(s, emu_T_s);"),
    ("extern __shared__ __align__(16) unsigned char s[];",
     "typedef   __align__(16) unsigned char emu_T_s; MINILLM_DYNAMIC(s, emu_T_s);"),
    ("volatile __shared__ float v[N < 3 ? 1 : 2];",
     "typedef volatile  float emu_T_v[N < 3 ? 1 : 2]; MINILLM_SHARED(v, emu_T_v);"),
    ("__shared__ alignas(16) half x[f<int>(2)];",
     "typedef  __align__(16) half emu_T_x[f<int>(2)]; MINILLM_SHARED(x, emu_T_x);"),
    ("__shared__ std::array<float, 4> a;", "typedef  std::array<float, 4> emu_T_a; MINILLM_SHARED(a, emu_T_a);"),
    ("__shared__ struct { float m; int i; } best[32];",
     "typedef  struct { float m; int i; } emu_T_best[32]; MINILLM_SHARED(best, emu_T_best);"),
    ("static __shared__ float *p;", "typedef   float *emu_T_p; MINILLM_SHARED(p, emu_T_p);"),
])
def test_shared_memory(text, made):
    assert rewrite_text(f"void k() {{ {text} }}") == f"void k() {{ {made} }}"


def test_dynamic_shared_memory_at_file_scope():
    assert "MINILLM_DYNAMIC_GLOBAL(s, emu_T_s);" in rewrite_text("namespace a { extern __shared__ float s[]; }")


@pytest.mark.parametrize("text, made", [
    ('asm volatile("t" : "=r"(y) : "l"(p + 1), "n"(16) : "memory");',
     '::minillm_cuda::Ptx("t" ) .op("=r", (y))  .op("l", (p + 1)) .op("n", (16)) .run();'),
    ('asm("bar.sync 0;" ::: "memory");', '::minillm_cuda::Ptx("bar.sync 0;" ) .run();'),
    ('asm("a;" "b;");', '::minillm_cuda::Ptx("a;" "b;").run();'),
])
def test_inline_ptx(text, made):
    squeezed = " ".join(rewrite_text(text).split()).replace("  ", " ")
    assert squeezed.replace(" ", "") == made.replace(" ", "")


@pytest.mark.parametrize("text, made", [
    ("__global__ void __launch_bounds__(T::N, 2) k(F<(1 > 0)> f) {}",
     'launch_bounds("__launch_bounds__(T::N, 2)", 1, T::N, 2);'),
    ("__launch_bounds__(f(3)) __global__ void\n__cluster_dims__(2, 1, 1) k()\n{ g(); }",
     'launch_bounds("__launch_bounds__(f(3))", 1, f(3));'),
    ("__global__ void __maxnreg__(N) k() {}", 'maxnreg("__maxnreg__(N)", 1, N);'),
    ("__global__ void __launch_bounds__(64) k(int);\nvoid f() {}", ""),
    ('// __launch_bounds__(64) k() {\nvoid f() { s = "__launch_bounds__(1) k() {"; }', ""),
])
def test_launch_bounds(text, made):
    rewritten = rewrite_text(text)
    assert rewritten == (text.replace("{", "{ ::minillm_cuda::" + made, 1) if made else text)


def test_variables_called_as_cudas_own_get_other_names():
    made = rewrite_text("void f() { { dim3 gridDim(1), blockDim(2); g(gridDim, blockDim); } h(blockDim.x); }")
    assert made == "void f() { { dim3 emu_gridDim(1), emu_blockDim(2); g(emu_gridDim, emu_blockDim); } h(blockDim.x); }"
    assert rewrite_text("void f(dim3 blockDim) { g(blockDim); } void h(int n) { g(blockDim); }") == (
        "void f(dim3 emu_blockDim) { g(emu_blockDim); } void h(int n) { g(blockDim); }")


def test_casts_of_kernels_go():
    assert rewrite_text("cudaFuncSetAttribute((const void*)k<2>, a, b);") == "cudaFuncSetAttribute(k<2>, a, b);"
    assert rewrite_text("cudaLaunchKernel((void *)k, g, b);") == "cudaLaunchKernel(k, g, b);"


def test_macros_are_rewritten_and_stay_on_their_lines():
    made = rewrite_text("#define RUN(kernel, n, ...) \\\n    kernel<<<n, 256>>>(__VA_ARGS__); \\\n    check()\nint x;")
    assert ", ##__VA_ARGS__);" in made and made.count("\n") == 3 and made.count("\\\n") == 2


def test_every_line_keeps_its_number():
    text = "void f() {\n  k<float,\n    4><<<1,  // one\n  2>>>(\n x);\n}\nint last;\n"
    made = rewrite_text(text)
    assert made.count("\n") == text.count("\n") and made.splitlines()[6] == "int last;"


def test_headers_beside_the_file_are_rewritten_too(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "k.cuh").write_bytes(b"#pragma once\r\n__global__ void k() { __shared__ int n; }\r\n")
    (tmp_path / "a.cu").write_text('#include <cuda_runtime.h>\n#include "sub/k.cuh"\nvoid f() { k<<<1, 2>>>(); }\n')
    out = tmp_path / "out"
    out.mkdir()
    made = rewrite_file(tmp_path / "a.cu", out).read_text()
    (header,) = out.glob("*k.h")
    assert f'#include "{header}"' in made and made.startswith(f'#line 1 "{tmp_path / "a.cu"}"\n')
    assert "MINILLM_SHARED(n" in header.read_text() and "\r" not in header.read_text()


@pytest.mark.parametrize("text, words", [
    ("#include <cublas_v2.h>\n", "line 1: cuBLAS"), ("\n#include <thrust/sort.h>\n", "line 2: Thrust"),
    ("#include <cub/cub.cuh>\n", "CUB"), ("void f() {\nk<<<1>>>(x); }", "line 2: `<<<` takes grid, block"),
    ("void f() { k<<<1, 2>>> x; }", "no arguments"), ("void f() { k<<<1, 2; }", "no `>>>"),
    ("void f() { <<<1, 2>>>(x); }", "no kernel's name"), ("__shared__ int n;", "kernel or a device function"),
    ("void k() { __shared__ int n = 0; }", "cannot be initialised"),
])
def test_what_cannot_be_rewritten_is_one_clear_error(tmp_path, text, words):
    (tmp_path / "a.cu").write_text(text)
    with pytest.raises(CannotRewrite, match="a.cu, line") as error:
        rewrite_file(tmp_path / "a.cu", tmp_path)
    assert words in str(error.value)
