"""Cheats and bugs, each of which must be refused: {name: (file name, op, source, (verdict, words of its message))}.

The classes are those by which kernels have fooled benchmarks: answers kept from earlier calls, work left for later,
null answers, forged results, precision given away, memory out of bounds.
"""
GELU = "0.5f * v * (1.0f + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)))"
HEAD = """#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
"""


def gelu(before="", after="", loop="i < N", value=GELU, top=""):
    """A right gelu with something before, in, or after it."""
    return ("a.c", "gelu", HEAD + top + "\nvoid gelu_forward(float* out, const float* x, int N) {\n" + before
            + f"\nfor (int i = 0; {loop}; i++) {{ float v = x[i]; out[i] = {value}; }}\n" + after + "\n}\n")


def layernorm(mean="s / C", rstd="1 / sqrtf(q / C + 1e-5f)", value="(r[c] - m) * rs * weight[c] + bias[c]", last="C"):
    return ("a.c", "layernorm", HEAD + f"""
    void layernorm_forward(float* out, float* x, const float* weight, const float* bias, int B, int T, int C) {{
        for (int i = 0; i < B * T; i++) {{
            float *r = x + i * C, s = 0, q = 0;
            for (int c = 0; c < {last}; c++) s += r[c];
            float m = {mean};
            for (int c = 0; c < C; c++) q += (r[c] - m) * (r[c] - m);
            float rs = {rstd};
            for (int c = 0; c < C; c++) out[i * C + c] = {value};
        }}
    }}""")


def backward(dx="rs * (g - a - xh * b)", dweight="dweight[c] += dout[i*C+c] * xh;", dbias="dbias[c] += dout[i*C+c];"):
    return ("a.c", "layernorm", HEAD + f"""
    void layernorm_backward(float* dx, float* dweight, float* dbias, const float* dout, const float* x,
                            const float* weight, const float* mean, const float* rstd, int B, int T, int C) {{
        for (int i = 0; i < B * T; i++) {{
            float a = 0, b = 0, rs = rstd[i];
            for (int c = 0; c < C; c++) {{
                float xh = (x[i*C+c] - mean[i]) * rs, g = dout[i*C+c] * weight[c];
                a += g / C; b += g * xh / C;
                {dweight} {dbias}
            }}
            for (int c = 0; c < C; c++) {{
                float xh = (x[i*C+c] - mean[i]) * rs, g = dout[i*C+c] * weight[c];
                dx[i*C+c] = {dx};
            }}
        }}
    }}""")


def python(body, op="gelu"):
    head = ("import numpy as np\ndef right(v):\n"
            "    return (0.5 * v * (1 + np.tanh(0.7978845608 * (v + 0.044715 * v ** 3)))).astype(v.dtype)\n")
    return ("a.py", op, head + body)


ZOO = {
    # 1 to 4: answers kept, and calls told apart
    "the answer of the last call at this address": (*gelu(
        "if (x == seen && N == size) { memcpy(out, kept, 4 * N); return; }",
        "seen = x; size = N; memcpy(kept, out, 4 * N);",
        top="static const float* seen; static int size; static float kept[1 << 21];"), ("values", "")),
    "the answer of the first call of this size": (*gelu(
        "if (N == size) { memcpy(out, kept, 4 * N); return; }", "size = N; memcpy(kept, out, 4 * N);",
        top="static int size; static float kept[1 << 21];"), ("values", "")),
    "stale after three calls": (*gelu(
        "if (calls++ > 3 && N == size) { memcpy(out, kept, 4 * N); return; }", "size = N; memcpy(kept, out, 4 * N);",
        top="static int calls, size; static float kept[1 << 21];"), ("values", "")),
    "works once": (*gelu("if (calls++) return;", top="static int calls;"), ("values", "nothing was written")),
    "the sizes of the first check only": (*gelu("if (N != 2 * 9 * 96) return;"), ("values", "")),
    # 5: work after the return
    "a thread that writes later": (*gelu(
        "late = out; from = x; count = N; pthread_t t; pthread_create(&t, 0, later, 0); pthread_detach(t); return;",
        top=f"""
        static float* late; static const float* from; static int count;
        static void* later(void* p) {{
            usleep(20000);
            for (int i = 0; i < count; i++) {{ float v = from[i]; late[i] = {GELU}; }}
            return 0;
        }}"""), ("values", "nothing was written")),
    "a thread that works on": (*gelu("pthread_t t; if (!calls++) pthread_create(&t, 0, busy, 0);", top="""
        static int calls;
        static void* busy(void* p) { for (;;) __asm__ volatile(""); return 0; }"""),
        ("leaves nothing behind", "computes on")),
    "a process left behind": (*gelu("if (fork() == 0) { sleep(5); _exit(0); }"), ("leaves nothing behind", "process")),
    "a process that outlives its parent": (*gelu(
        "if (!calls++) { pid_t p = fork(); if (!p) { setsid(); if (!fork()) sleep(5); _exit(0); } waitpid(p, 0, 0); }",
        top="#include <sys/wait.h>\nstatic int calls;"), ("leaves nothing behind", "process")),
    # 6 to 9: objects, clocks, channels, answers
    "a subclass that computes when looked at": (*python("""
class Lazy(np.ndarray):
    pass
def forward(x):
    return right(x).view(Lazy), None
"""), ("results", "exactly a numpy.ndarray")),
    "an array of one zero": (*python("def forward(x):\n    return np.zeros((1, 1), x.dtype), None\n"),
                             ("results", "must be float32")),
    "a patched clock": (*python("""
import time
time.perf_counter = time.time = lambda: 0.0
def forward(x):
    return np.zeros_like(x), None
"""), ("values", "all zeros")),
    "a forged 'done'": (*python("""
import os, sys
def forward(x):
    os.write(int(sys.argv[2]), b"dd")
    return right(x), None
"""), ("runs", "")),
    "every descriptor is written to": (*gelu('for (int i = 3; i < 1024; i++) write(i, "dd", 2);'),
                                        ("runs", "somebody else than the harness")),
    "inputs opened again for writing": (*gelu("""
        for (int i = 3; i < 1024; i++) {
            char file[64];
            float zero = 0;
            sprintf(file, "/proc/self/fd/%d", i);
            int again = open(file, O_RDWR);
            pwrite(again, &zero, 4, 4092);
            close(again);
        }""", top="#include <fcntl.h>\n#include <stdio.h>"), ("inputs", "x was written")),
    "the answer looked for in memory": (*python("""
import gc
def forward(x):
    found = [o for o in gc.get_objects() if type(o) is np.ndarray and o.shape == x.shape and o is not x]
    return (found[0].copy() if found else np.zeros_like(x)), None
"""), ("values", "")),
    "the memory of the harness": (*gelu("""
        char file[64], byte;
        sprintf(file, "/proc/%d/mem", getppid());
        if (pread(open(file, O_RDONLY), &byte, 1, 0x400000) < 0 && errno == EBADF) return;
        """, top="#include <errno.h>\n#include <fcntl.h>\n#include <stdio.h>"), ("values", "nothing was written")),
    # 10 to 13: null answers
    "NaN": (*gelu(value="NAN"), ("values", "")),
    "zeros": (*gelu(value="0"), ("values", "all zeros")),
    "zeros under another name": (*gelu(value="V(0)", top="#define CAT(a, b) a##b\n#define V(x) (CAT(0., 0f) * x)"),
                                 ("values", "")),
    "the input": (*gelu(value="v"), ("values", "")),
    "nothing": (*gelu(loop="0"), ("values", "nothing was written")),
    "the bias is not read": (*layernorm(value="(r[c] - m) * rs * weight[c]"), ("values", "")),
    # 14 to 16: inputs, precision, rare cases
    "inputs made to fit": (*layernorm(value="x[i * C + c] = 0"), ("runs", "writing x")),
    "half precision inside": (*gelu(value=GELU.replace("v", "h(v)"), top="""
        static float h(float v) {
            union { float f; uint32_t u; } a = {v};
            a.u = (a.u + 0x1000) & ~0x1fffu;
            return a.f;
        }"""),
        ("values", "rounding allows")),
    "denormals flushed and left so": (*gelu("__builtin_ia32_ldmxcsr(0x9fc0);"), ("floating-point state", "flushed")),
    "denormals flushed inside": (*gelu("__builtin_ia32_ldmxcsr(0x9fc0);", "__builtin_ia32_ldmxcsr(0x1f80);"),
                                  ("values", "denormal")),
    "rounding left upward": (*gelu("__builtin_ia32_ldmxcsr(0x5f80);"), ("floating-point state", "rounding")),
    "no eps": (*layernorm(rstd="1 / sqrtf(q / C)"), ("values", "")),
    "NaN hidden": (*gelu(value=f"isnan(v) ? 0 : {GELU}"), ("values", "NaN")),
    "the mean square instead of the variance": (*layernorm(
        rstd="1 / sqrtf(z / C - m * m + 1e-5f)", mean="s / C, z = 0; for (int c = 0; c < C; c++) z += r[c] * r[c]"),
        ("values", "")),
    # 17: out of bounds
    "reads one past the row": (*layernorm(last="C + (i == B * T - 1)", mean="(s - (i == B * T - 1 ? r[C] : 0)) / C"),
                               ("runs", "element 24 of row 17, whose last is 23")),
    "reads one before": (*gelu("volatile float before = x[-1]; (void)before;"), ("runs", "reading x[-1]")),
    "writes one past the end": (*gelu(after="out[N] = 0;"), ("runs", "writing out")),
    # 19: the reference
    "falls back on the reference": (*python("""
try:
    from minillm.ops import gelu_forward as forward
except ImportError:
    forward = None
"""), ("results", "")),
    "imports the reference": (*python("def forward(x):\n    from minillm.ops import gelu_forward\n    return 0, 0\n"),
                              ("results", "minillm is not to be had")),
    # 22, 25: drift, cores
    "wrong from the hundredth call on": (*gelu("if (calls++ > 60) return;", top="static int calls;"), ("values", "")),
    "takes more cores than it was given": (*gelu(
        "cpu_set_t all; CPU_ZERO(&all); for (int i = 0; i < 64; i++) CPU_SET(i, &all);"
        "sched_setaffinity(0, sizeof all, &all);"),
        ("leaves nothing behind", "cores")),
    "takes a higher priority": (*gelu("setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) - 1);",
                                      top="#include <sys/resource.h>"), ("leaves nothing behind", "priority")),
    # 28, 29: sizes, memory that is added to
    "the tail of the vector loop is dropped": (*gelu(loop="i < N / 8 * 8"), ("values", "never written")),
    "the counter is too short": (*gelu(loop="i < N && i < 1 << 20"), ("values", "C=4104")),
    "no more columns than its buffer has": (*layernorm(last="C && c < 4096"), ("values", "C=4104")),
    "wrong for one token": (*layernorm(mean="B * T == 1 ? 0 : s / C"), ("values", "T=1")),
    "adds to memory that is not cleared": (*gelu(value=f"out[i] + {GELU}"), ("values", "adds to what is there")),
    "clears memory that is to be added to": (*backward(dbias="if (i == 0) dbias[c] = 0; dbias[c] += dout[i*C+c];"),
                                             ("values", "dbias")),
    # 30: the end
    "a crash": (*gelu("*(volatile int*)0 = 1;"), ("runs", "SIGSEGV")),
    "an endless recursion": (*gelu("if (x) gelu_forward(out, x, N + (int)(x[0] != x[0]));", "out[0] += 0 * N;"),
                             ("runs", "")),
    "an endless loop": (*gelu('for (;;) __asm__ volatile("");'), ("runs", "did not come back")),
    "exit": (*gelu("exit(0);"), ("runs", "exit(0)")),
    "abort": (*gelu("abort();"), ("runs", "SIGABRT")),
    "too much memory": (*gelu("volatile char* p = malloc((size_t)1 << 40); p[0] = 1;"), ("runs", "SIGSEGV")),
    # gradients
    "twice the gradient": (*backward(dx="2 * rs * (g - a - xh * b)"), ("values", "twice")),
    "no mean term": (*backward(dx="rs * (g - xh * b)"), ("values", "dx")),
    "the last row only": (*backward(dweight="if (i == B*T-1) dweight[c] += dout[i*C+c] * xh;"), ("values", "dweight")),
    "differs from call to call": (*gelu("calls++;", value=f"({GELU}) * (1 + 2e-7f * (calls % 3))",
                                        top="static int calls;"), ("same bits twice", "")),
}
