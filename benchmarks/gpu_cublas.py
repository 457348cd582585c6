"""NVIDIA's cuBLASLt by ctypes: the yardstick of matmuls where it is installed, and no dependency.

Row-major out (N, OC) = x (N, C) @ w (C, OC) is, to a library of column-major arrays, out^T = w^T x^T: w goes first.
"""
import ctypes
import ctypes.util
import sysconfig
from pathlib import Path

TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}                # cudaDataType
COMPUTE = {"float32": 68, "tf32": 77, "float16": 68, "bfloat16": 68}        # CUBLAS_COMPUTE_32F, ..._FAST_TF32
ANSWER_BYTES, WORKSPACE = 96, 64 << 20                              # of cublasLtMatmulHeuristicResult_t; for a matmul
MOST_WORKSPACE = 1                                                  # CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES


def find():
    """The library's path or name, or None: of the pip wheels, of CUDA's folder, of the system."""
    wheels = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/lib/libcublasLt.so.*"))
    places = [*map(str, wheels), *map(str, sorted(Path("/usr/local/cuda/lib64").glob("libcublasLt.so.*")))]
    return next(iter(places), None) or ctypes.util.find_library("cublasLt")


class Matmul:
    """One matmul of row-major arrays on the device, x (N, C) @ w (C, OC), by the algorithm the library thinks best."""

    def __init__(self, driver, N, C, OC, dtype="bfloat16", library=None):
        self.library, self.driver = library or ctypes.CDLL(find()), driver
        kind = TYPES[dtype.replace("tf32", "float32")]
        self.handle, self.what, preference = (ctypes.c_void_p() for _ in range(3))
        self.call("cublasLtCreate", ctypes.byref(self.handle))
        self.call("cublasLtMatmulDescCreate", ctypes.byref(self.what), COMPUTE[dtype], TYPES["float32"])
        self.layouts = [self.layout(kind, *sizes) for sizes in ((OC, C), (C, N), (OC, N))]
        self.call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        most = ctypes.c_size_t(WORKSPACE)
        self.call("cublasLtMatmulPreferenceSetAttribute", preference, MOST_WORKSPACE, ctypes.byref(most),
                  ctypes.c_size_t(8))
        self.algorithm, found = ctypes.create_string_buffer(ANSWER_BYTES), ctypes.c_int()
        w, x, out = self.layouts
        self.call("cublasLtMatmulAlgoGetHeuristic", self.handle, self.what, w, x, out, out, preference, 1,
                  self.algorithm, ctypes.byref(found))
        if not found.value:
            raise RuntimeError(f"cuBLASLt knows no algorithm for {N} x {C} x {OC} in {dtype}")
        self.workspace = driver.allocate(WORKSPACE)
        self.one, self.zero = ctypes.c_float(1), ctypes.c_float(0)

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} failed with cuBLAS status {code}")

    def layout(self, kind, rows, columns):
        made = ctypes.c_void_p()
        self.call("cublasLtMatrixLayoutCreate", ctypes.byref(made), kind, ctypes.c_uint64(rows),
                  ctypes.c_uint64(columns), ctypes.c_int64(rows))
        return made

    def __call__(self, x, w, out):
        """Addresses on the device."""
        pointers = [ctypes.c_void_p(address) for address in (w, x, out)]
        a, b, d = self.layouts
        self.call("cublasLtMatmul", self.handle, self.what, ctypes.byref(self.one), pointers[0], a, pointers[1], b,
                  ctypes.byref(self.zero), pointers[2], d, pointers[2], d, self.algorithm,
                  ctypes.c_void_p(self.workspace), ctypes.c_size_t(WORKSPACE), ctypes.c_void_p(self.driver.stream))
