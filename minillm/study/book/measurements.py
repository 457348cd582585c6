"""How fast the kernels of an op are: tables of the newest committed results, or of fresh ones."""
from .blocks import Block, Box, Paragraph, Span, Table
from .markup import inline, inline_row
from .results import NONE_HERE, Measured, ladder, newest, runs

NAMES = {"numpy": "NumPy", "torch": "PyTorch", "cpu": "C++", "auto": "C++ (its parts)"}


def measurement_blocks(op: str, label: str, live: dict | None) -> list[Block]:
    """The op's candidates side by side, and its ladder of variants where it has one."""
    found, steps = (newest(op), ladder(op)) if live is None else (live.get(op), None)
    if not found or not found.rows:
        words = "; ".join(found.skipped) if found else ""
        return [Paragraph(inline("No measurement of this op is there.") + [Span("text", f" {words}")])
                if live is not None or runs() else Box("Not here", [Span("text", NONE_HERE)])]
    found = found._replace(rows=[row for row in found.rows if not row.get("ladder")])
    blocks: list[Block] = [Paragraph([Span("text", f"Not timed: {words}")]) for words in found.skipped]
    if found.rows:
        blocks.append(speed_table(op, found, f"{label}-speed", "Candidates in turns"))
    if steps:
        blocks.append(speed_table(op, steps, f"{label}-ladder", "What each idea buys: variants in turns"))
    return blocks


def speed_table(op: str, run: Measured, label: str, what: str) -> Table:
    """One line for each candidate and direction. Percent of the roofline: of the limit that binds, memory bandwidth or
    FLOP/s."""
    rows = [inline_row("candidate", "direction", "ms", "GFLOP/s", "GB/s", "% of roofline", "bound")]
    order = {name: place for place, name in enumerate(dict.fromkeys(row["candidate"] for row in run.rows))}
    for row in sorted(run.rows, key=lambda row: (row["direction"] != "forward", order[row["candidate"]])):
        name = NAMES.get(row["candidate"], f"`{row['candidate']}`")
        rows.append(inline_row(name, row["direction"],
                               f"{row['median_ms']:,.3f}", figure(row.get("gflops")), figure(row.get("gbs")),
                               figure(row.get("peak_percent"), 0), row.get("bound") or "–"))
    dims = ", ".join(dict.fromkeys(row["dims"] for row in run.rows))
    limits = ", ".join(f"{peak['gflops']:,.0f} GFLOP/s {name}" if "gflops" in peak else
                       f"{peak['gbs']:,.0f} GB/s {name}" for name, peak in run.peaks.items())
    return Table(rows, [False, False, True, True, True, True, False], inline(
        f"`{op}`: {what} ({dims}; {run.where()}; limits measured in the same run: {limits}). Medians."), label)


def figure(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where it was not measured."""
    return "–" if value is None else f"{value:,.{digits}f}"
