"""Every op's kernel beside NumPy and PyTorch, from the newest committed result."""
from ....ops.table import OPS
from ..figures.measured import rows as measured
from ..figures.roofline import DIMS
from ..results import NotHere


def rows() -> list[list[str]]:
    """Op, direction, ms of NumPy, C++ and PyTorch, the kernel's share of the peak that bounds it."""
    table = [["op", "", "NumPy, ms", "C++, ms", "PyTorch, ms", "% of peak"]]
    for op in OPS:
        try:
            found = measured(op, dims=DIMS)
        except NotHere:                                                  # not measured yet
            continue
        by = {(row["direction"], row["candidate"]): row for row in found}
        for direction in dict.fromkeys(row["direction"] for row in found):
            cells = [by.get((direction, candidate)) for candidate in ("numpy", "cpu", "torch")]
            share = cells[1]["peak_percent"] if cells[1] else None
            table.append([f"`{op}`", direction, *(f"{cell['median_ms']:,.3f}" if cell else "-" for cell in cells),
                          f"{share:.0f} ({cells[1]['bound']})" if share and cells[1] else "-"])
    return table
