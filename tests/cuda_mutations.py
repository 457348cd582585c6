"""Bugs planted in the CUDA kernels, one at a time: does the emulator catch them?  `python tests/cuda_mutations.py`

Each mutant is the text of csrc/cuda with one replacement, compiled for the emulator and run over a few sizes and
schedules. It is caught by an error, a crash, a wrong number, results that differ between schedules, or a bank conflict
that was not there. A mutant that survives shows what the emulator cannot see.
"""
import argparse
import ctypes
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from cuda_planted import (
    FAR_MUTANTS,
    FLASH,
    HOPPER,
    MMA,
    MMA_BACK,
    MUTANTS,
    NAIVE,
    WATCHED_MUTANTS,
    WGMMA,
    WGMMA_BACK,
    WGMMA_LAUNCH,
)
from tolerances import same_bits

HERE = Path(__file__).resolve().parent
CUDA = HERE.parent / "csrc" / "cuda"
VARIANT = {NAIVE: 1, FLASH: 2, MMA: 3, MMA_BACK: 3, "attention/repack.cuh": 3, "attention/launch.cu": 3, WGMMA: 4,
           WGMMA_BACK: 4, HOPPER: 4, WGMMA_LAUNCH: 4, "attention/common.cuh": 3}
SCHEDULES = (0, 8, 9, 10, 11, 12, 42, 44)
# B, T, NH, HS, causal; the emulator's groups hold two of the last one's heads
SIZES = ((1, 130, 1, 64, 1), (1, 70, 2, 32, 0), (2, 37, 1, 20, 1), (1, 20, 3, 8, 1))
# of variant 4, whose tiles are 128
LONG = ((1, 20, 3, 8, 1), (1, 300, 1, 64, 1), (1, 530, 1, 64, 0), (2, 130, 2, 40, 0), (1, 290, 1, 128, 1))


def build(folder, variant, mutant=None, flags=()):
    """The library of one mutant, or of the kernels as they are; of variant 4, or of the other three."""
    source = folder / "cuda"
    shutil.copytree(CUDA, source, dirs_exist_ok=True)
    if mutant:
        what, file, text, replacement = mutant
        code = (source / file).read_text()
        if text not in code:
            raise ValueError(f"{file} has no longer the text of the mutant {what!r}")
        (source / file).write_text(code.replace(text, replacement, 1))
    library = folder / "mutant.so"
    compiler = ["g++", "-std=c++17", "-O1", "-w", "-Wno-psabi", "-fPIC", "-fno-gnu-unique", f"-I{folder}"]
    main = [*(["-DHOPPER"] if variant == 4 else []), *flags, str(HERE / "cuda" / "cuda_mutants.cpp")]
    if mutant in FAR_MUTANTS:
        main = [str(HERE / "cuda" / "cuda_far.cpp")]
    if mutant in WATCHED_MUTANTS:
        object_file = folder / "kernels.o"
        compiler += ["-fno-threadsafe-statics"]
        subprocess.run([*compiler, "-fsanitize=thread", "-c", *main, "-o", str(object_file)], check=True)
        main = [str(source / "emulator" / "watched" / "watched.cpp"), str(object_file)]
    subprocess.run([*compiler, "-shared", *main, "-o", str(library)], check=True)
    return library


def inputs(B, T, NH, HS):
    rng = np.random.default_rng(T)
    qkv, dout = rng.standard_normal((B, T, 3 * NH * HS)), rng.standard_normal((B, T, NH * HS))
    return [((x.astype("float32").view("uint32") + 0x8000) & 0xffff0000).view("float32")         # bfloat16 numbers
            for x in (qkv, dout)]


def expected(qkv, dout, NH, causal):
    """out and dqkv in float64."""
    B, T, _ = qkv.shape
    q, k, v = qkv.astype("float64").reshape(B, T, 3, NH, -1).transpose(2, 0, 3, 1, 4)
    scale = 1 / math.sqrt(q.shape[-1])
    S = scale * q @ k.swapaxes(-1, -2)
    S = np.where(np.tri(T, dtype=bool), S, -np.inf) if causal else S
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P /= P.sum(axis=-1, keepdims=True)
    d = dout.astype("float64").reshape(B, T, NH, -1).swapaxes(1, 2)
    dP = d @ v.swapaxes(-1, -2)
    dS = scale * P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    parts = np.stack([dS @ k, dS.swapaxes(-1, -2) @ q, P.swapaxes(-1, -2) @ d])       # (3, B, NH, T, HS)
    return (P @ v).swapaxes(1, 2).reshape(dout.shape), parts.transpose(1, 3, 0, 2, 4).reshape(qkv.shape)


def run(library, variant, seed, qkv, dout, NH, causal):
    """(error text, out, lse, dqkv) of one run; without dout of the forward alone."""
    attention = library.attention
    attention.restype = ctypes.c_char_p
    B, T, width = qkv.shape
    out, lse, dqkv = np.zeros_like(qkv[..., :width // 3]), np.zeros((B, NH, T), "float32"), np.zeros_like(qkv)
    pointers = [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in (qkv, dout, out, lse, dqkv)]
    sizes = ctypes.c_int64(B), ctypes.c_int64(NH), T, width // NH // 3, causal
    text = attention(variant, ctypes.c_uint(seed), *pointers, *sizes)
    return text.decode(), out, lse, dqkv


def fault(path, variant):
    """The first thing found wrong with a library, "" for nothing."""
    library = ctypes.CDLL(str(path))
    if variant == 2 and (slow := conflicts(library)):
        return slow
    for B, T, NH, HS, causal in LONG if variant == 4 else SIZES:
        qkv, dout = inputs(B, T, NH, HS)
        wanted, first = expected(qkv, dout, NH, causal), None
        for seed in SCHEDULES:
            text, *got = run(library, variant, seed, qkv, dout, NH, causal)
            if text:
                return text
            limit = 4e-3 if variant >= 3 else 1e-5
            for name, a, b in (("out", got[0], wanted[0]), ("dqkv", got[2], wanted[1])):
                error = np.linalg.norm(a - b) / np.linalg.norm(b)
                if not error < limit:
                    return f"{name} is off by {error:.1e} (T={T}, schedule {seed})"
            first = first or got
            if not all(map(same_bits, got, first)):
                return f"schedule {seed} gives other bits"
    if library.bank_conflicts():
        return f"{library.bank_conflicts()} bank conflicts"
    return nan_fault(library, variant)


def conflicts(library):
    """Those of ordinary loads and stores, in whole tiles: where lanes take different branches, less is seen."""
    if not hasattr(library, "take_ordinary_conflicts"):
        return ""
    worst = ctypes.c_int64()
    library.take_ordinary_conflicts(ctypes.byref(worst))
    for HS in (32, 64):
        run(library, 2, 0, *inputs(1, 64, 1, HS), 1, 0)
    lost = library.take_ordinary_conflicts(ctypes.byref(worst))
    return f"{lost} bank conflicts of ordinary loads" if lost else ""


def nan_fault(library, variant):
    """A broken value must reach the rows that see it, and no other."""
    qkv, dout = inputs(1, 70, 1, 32)
    qkv += np.repeat(np.float32([9, -9, 0]), 32)                         # past the last key exp(0 - lse) is infinite
    if not np.isfinite(run(library, variant, 0, qkv, dout, 1, 0)[3]).all():
        return "scores far below zero break the gradients"
    for broken in ("q", "k", "v", "dout"):
        qkv, dout = inputs(1, 70, 1, 32)
        array, at = (dout, 3) if broken == "dout" else (qkv, 32 * "qkv".index(broken) + 3)
        array[0, 43, at] = np.nan                                        # of token 43, number 3
        for seed in SCHEDULES[::2]:
            _, out, _, dqkv = run(library, variant, seed, qkv, dout, 1, 1)
            bad = [np.isnan(part) for part in (out[0], *np.split(dqkv[0], 3, axis=1))]
            if not all(map(np.array_equal, bad, reached(broken))):
                return f"NaN in {broken}[43, 3] breaks {[b.sum() for b in bad]} numbers of out, dq, dk and dv"
    return ""


def reached(broken):
    """What a NaN in row 43, number 3, reaches of out, dq, dk and dv of causal attention, each (70, 32)."""
    out, dq, dk, dv = (np.zeros((70, 32), bool) for _ in range(4))
    if broken == "dout":
        dq[43] = dk[:44] = dv[:44, 3] = True
    elif broken == "q":
        out[43] = dq[43] = dk[:44] = dv[:44] = True
    elif broken == "k":
        out[43:] = dq[43:] = dk[:] = dv[:] = True
    else:
        out[43:, 3] = dq[43:] = dk[:] = True
    return out, dq, dk, dv


def verdict(mutant):
    """What caught this mutant, "" if nothing did. In a process of its own, since a mutant may crash or never end."""
    variants = (VARIANT.get(mutant[1], 0),) if mutant else (1, 2, 3, 4)
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            library = build(Path(folder), variant, mutant)
            program = [sys.executable, __file__, "--library", str(library), "--variant", str(variant)]
            if mutant in FAR_MUTANTS:
                program = [sys.executable, str(HERE / "far_views.py"), str(library)]
            try:
                done = subprocess.run(program, capture_output=True, text=True, timeout=300,
                                      check=False)
            except subprocess.TimeoutExpired:
                return "it never ends"
            found = done.stdout.strip() or (f"crash (signal {-done.returncode})" if done.returncode else "")
            if found:
                return found
    return ""


def main():
    parser = argparse.ArgumentParser(description="Plant bugs in the CUDA kernels and see which the emulator catches.")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    parser.add_argument("--variant", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="mutants whose file or text holds these words")
    options = parser.parse_args()
    if options.library:
        print(fault(options.library, options.variant))
        return 0
    print(f"{'the kernels as they are':<66}{verdict(None) or 'right'}", flush=True)
    every = (*MUTANTS, *FAR_MUTANTS, *WATCHED_MUTANTS)
    chosen = [mutant for mutant in every if options.only in f"{mutant[1]}: {mutant[0]}"]
    caught = 0
    for mutant in chosen:
        found = verdict(mutant)
        caught += bool(found)
        print(f"{mutant[1] + ': ' + mutant[0]:<66}{found or 'NOT CAUGHT'}", flush=True)
    print(f"caught {caught} of {len(chosen)}")
    return 0 if caught >= 0.9 * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
