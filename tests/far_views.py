"""cuda_far.cpp compiled and called: the kernels on views that are hard to address (tests, and cuda_mutations.py)."""
import ctypes
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CSRC = HERE.parent / "csrc"
KINDS = ("dense", "far", "offset", "row", "head", "batch")
TO_COMPARE = {1: ("far",), 2: ("far",), 3: KINDS[1:], 4: ("far", "offset", "row")}       # 1 and 2 read number by number
SIZES = (2, 2, 70, 32)                              # B, NH, T, HS: the last row lies 2^31 numbers from the first


def build(library, sources=CSRC, flags=("-O1",)):
    """The library of cuda_far.cpp with the kernels in this folder."""
    subprocess.run(["g++", "-std=c++17", *flags, "-w", "-Wno-psabi", "-fPIC", "-fno-gnu-unique", "-shared",
                    f"-I{sources}", str(HERE / "cuda" / "cuda_far.cpp"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run(library, variant, kind):
    """(error text, [out, dq, dk, dv]) of bfloat16 numbers in views of this kind."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((4, *SIZES)).astype("float32"), np.zeros((4, *SIZES), "float32")]
    pointers = [ctypes.c_void_p(array.ctypes.data) for four in arrays for array in four]
    library.views.restype = ctypes.c_char_p
    sizes = [ctypes.c_int64(size) for size in SIZES[:2]] + list(SIZES[2:])
    return library.views(variant, KINDS.index(kind), *pointers, *sizes).decode(), list(arrays[1])


def fault(library, variants=tuple(TO_COMPARE)):
    """The first thing found wrong with these variants, "" for nothing."""
    for variant in variants:
        error, want = run(library, variant, "dense")
        if error or not all(array.any() for array in want):
            return f"variant {variant}: {error or 'nothing was computed'}"
        for kind in TO_COMPARE[variant]:
            error, got = run(library, variant, kind)
            if error or not all(np.array_equal(a, b) for a, b in zip(got, want)):
                return f"variant {variant}, {kind}: {error or 'other numbers'}"
    return ""


if __name__ == "__main__":                          # far_views.py LIBRARY: in a process of its own, which may crash
    import sys
    print(fault(ctypes.CDLL(sys.argv[1])))
