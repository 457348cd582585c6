"""Measure the kernels of all ops on this machine again, as `minillm kernel bench` does: for `minillm book --live`."""
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...kernels.info import installation
from ...kernels.select import choices
from ...ops.table import OPS, Dims, functions
from ...progress import Report
from ...workbench.kernel.bench import DIMS, ROUNDS, bench_kernel
from ...workbench.kernel.check import Refused
from ...workbench.kernel.subject import PyKernel
from .results import Measured


def measure(ops: Sequence[str] | None = None, progress: Report | None = None, dims: Dims = DIMS,
            rounds: int = ROUNDS) -> dict[str, Measured]:
    """{op: its kernels beside NumPy, timed now}. Raises ValueError for an op that is none."""
    if unknown := set(ops or ()) - set(OPS):
        raise ValueError(f"ops must be among {', '.join(OPS)}: got {', '.join(sorted(unknown))}")
    jobs = [(op, place) for op in ops or OPS for place in range(len(functions(OPS[op])))]
    here = machine()
    found: dict[str, Measured] = {}
    for done, (op, place) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), functions(OPS[op])[place])
        before = found.get(op, Measured(time.strftime("%Y-%m-%d"), here, {}, []))
        try:
            timed, peaks = measured_rows(op, ("forward", "backward")[place], dims, rounds)
            found[op] = before._replace(rows=before.rows + timed, peaks=peaks)
        except Refused as error:                                    # a machine too busy to be timed, say
            words = f"{functions(OPS[op])[place]} ({error})"
            found[op] = before._replace(skipped=(*before.skipped, words))
    return found


def machine() -> dict[str, Any]:
    """What the tables say of this machine."""
    facts = installation()
    return {"cpu": facts["cpu"], "threads": facts["cores"], "minillm_kernels": facts["in_use"], "numpy": facts["numpy"]}


def measured_rows(op: str, direction: str, dims: Dims, rounds: int) -> tuple[list[dict[str, Any]], dict[str, dict]]:
    """(a row for each candidate, the limits measured meanwhile) of one function."""
    names = [name for name in choices(op, "float32") if name.startswith(("numpy", "cpu")) and "bf16" not in name]
    best = "cpu" if "cpu" in names else "numpy"
    pair = dict(zip(("forward", "backward"), functions(OPS[op])))
    kernel = PyKernel(Path(best), op, direction, pair, "float32", entrant=best)
    row = bench_kernel(kernel, [name for name in names if name != best], dims, rounds=rounds)
    seconds = {best if name == "yours" else name: times["warm"] / 1e3 for name, times in row["ms"].items()}
    work, size, sizes = (row["gflops"] * seconds[best], row["gbs"] * seconds[best],
                         " ".join(f"{key}={value}" for key, value in row["dims"].items()))
    peaks = {"float32": {"gflops": row["peak_gflops"]}, "memory": {"gbs": row["peak_gbs"]}}
    return [{"op": op, "candidate": name, "direction": direction, "dims": sizes, "median_ms": 1e3 * seconds[name],
             "gflops": work / seconds[name], "gbs": size / seconds[name], "bound": row["bound"],
             "peak_percent": 100 * row["floor_ms"] / (1e3 * seconds[name])} for name in names], peaks
