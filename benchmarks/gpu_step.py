"""What one process of `python -m benchmarks.gpu` does: one job on its items. Prints a line of JSON an item."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from minillm.kernels import select as registry

from . import gpu_arrays, gpu_check, gpu_driver, gpu_matmul, gpu_ops, gpu_plan, gpu_runner, gpu_time, gpu_train, machine

SQUARE = 8192                               # of the matmul that says what the tensor cores give


def device(_):
    """What the GPU is; its copy bandwidth; and the fastest bfloat16 matmul that other libraries have."""
    return {"gpu": the_gpu, "copy": copy_bandwidth, "cublaslt": ceiling, "torch": ceiling}[OPTIONS.who]()


def the_gpu():
    found = DRIVER.about()
    tflops, gbs = gpu_driver.datasheet(found["name"])
    return found | {"capability": MODULE.capability(), "clocks": gpu_driver.clocks(), "datasheet_bf16_tflops": tflops,
                    "datasheet_gbs": gbs, "host": machine.describe(os.cpu_count())}


def copy_bandwidth():
    """GB/s of a copy on the device, bytes read and written."""
    call, size = DRIVER.copier()
    return {"copy_gbs": round(2 * size / gpu_time.milliseconds(DRIVER, call)["ms"] / 1e6, 1)}


def ceiling():
    """TFLOP/s of a large bfloat16 GEMM."""
    found = gpu_matmul.case(MODULE, DRIVER, OPTIONS.who, *[SQUARE] * 3)
    rates = [row["tflops"] for row in found["rows"] if (row["dtype"], row["direction"]) == ("bfloat16", "forward")]
    return {f"{OPTIONS.who}_bf16_tflops": max(rates, default=None)}


def conformance(name):
    """How many answers agree with the emulated twin, and some of them for the fixture."""
    table, fixture = gpu_check.conformance(MODULE, registry.cuda("cudasim"), names=[name])
    return {"agree": table[name], "fixture": {key: array.tolist() for key, array in fixture.items()}}


def ops(case):
    return gpu_ops.check(OPTIONS.who, *case)


def step(size):
    return gpu_train.case(MODULE, OPTIONS.who, *size, emulate=OPTIONS.emulate)


def bandwidth(item):
    return gpu_ops.speed(MODULE, DRIVER, OPTIONS.who.removeprefix("torch "), *item, emulate=OPTIONS.emulate)


def matmul(size):
    return gpu_matmul.case(MODULE, DRIVER, OPTIONS.who, *size)


def attention(size):
    return gpu_time.case(MODULE, DRIVER, OPTIONS.who, *size, emulate=OPTIONS.emulate)


def correctness(case):
    return gpu_check.check_case(MODULE, OPTIONS.who, *case)


def beside(T):
    """Seconds of one forward and backward, B=1, 12 heads of 64, float32, NumPy arrays in and out."""
    rng = np.random.default_rng(0)
    qkv, dout = (rng.standard_normal((1, T, width)).astype("float32") for width in (3 * 768, 768))
    ops = registry.select({"attention": OPTIONS.who})
    best = []
    for _ in range(3):
        start = time.perf_counter()
        _, cache = ops.attention_forward(qkv, 12)
        middle = time.perf_counter()
        ops.attention_backward(dout, cache)
        best.append((middle - start, time.perf_counter() - middle))
    found = {"forward_s": min(f for f, _ in best), "backward_s": min(b for _, b in best)}
    if OPTIONS.who in ("cuda", "cudasim"):
        found["of_which"] = MODULE.last_seconds()               # of the last backward: copies apart
    return found


def sanitizer(tool):
    """"clean", or what compute-sanitizer says on the smallest cases of this variant of attention, or of this op."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        return "not installed"
    who = OPTIONS.who
    if who in gpu_check.VARIANTS:
        job, items = "correctness", [[gpu_check.VARIANTS[who][0], 72, 70, True]]
    else:
        job, items = "ops", gpu_ops.cases(who, gpu_plan.choices_here(MODULE, gpu_plan.with_kernels(False)[who]), True)
    done = subprocess.run([program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m",
                           "benchmarks.gpu_step", job, who, json.dumps(items)], capture_output=True, text=True,
                          stdin=sys.stdin, check=False)
    return "clean" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


JOBS = {job.__name__: job for job in (device, conformance, ops, step, bandwidth, matmul, attention, correctness, beside,
                                      sanitizer)}
WITH_DRIVER = ("device", "bandwidth", "matmul", "attention")


def main():
    global OPTIONS, MODULE, DRIVER
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_step", description=__doc__)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("who", help="a variant, an op or another library")
    parser.add_argument("items")
    parser.add_argument("--emulate", action="store_true")
    OPTIONS = parser.parse_args()
    MODULE = registry.cuda("cudasim" if OPTIONS.emulate else "cuda")
    if OPTIONS.job in WITH_DRIVER:
        DRIVER = gpu_driver.Emulated() if OPTIONS.emulate else gpu_driver.Driver()
        if OPTIONS.job in ("bandwidth", "matmul") and not OPTIONS.who.startswith(gpu_plan.PEERS):
            gpu_arrays.use_stream(MODULE, DRIVER)
    gpu_runner.answer_each(JOBS[OPTIONS.job], json.loads(OPTIONS.items))


if __name__ == "__main__":
    main()
