"""What `python -m benchmarks.gpu` found, as a page of Markdown with a summary at its head, and as a picture."""
from . import gpu_time


def peaks(document):
    """(bf16 TFLOP/s, who says so), (GB/s, who says so): measured in this run, else the datasheet's, else None."""
    device = document["device"]
    measured = {name: device.get(f"{name}_bf16_tflops") for name in ("cublaslt", "torch")}
    best = max(measured, key=lambda name: measured[name] or 0)
    compute = (measured[best], f"measured: {best}") if measured[best] else (
        device.get("datasheet_bf16_tflops"), "datasheet")
    memory = (device["copy_gbs"], "measured: copy on the device") if device.get("copy_gbs") else (
        device.get("datasheet_gbs"), "datasheet")
    return compute, memory


def percent(value, peak):
    return f"{100 * value / peak:.0f}%" if value is not None and peak else "-"


def table(head, rows):
    if not rows:
        return ["Not measured.", ""]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|",
            *(f"| {' | '.join('-' if cell is None else str(cell) for cell in row)} |" for row in rows), ""]


def summary(document):
    """The lines that matter most."""
    (compute, compute_by), (memory, memory_by) = peaks(document)
    ops, attention = document["ops"], document["correctness"]
    lines = [f"{document['device'].get('name', 'unknown GPU')}: peak {compute or '?'} TFLOP/s bf16 ({compute_by}), "
             f"{memory or '?'} GB/s ({memory_by})",
             f"instructions: {sum(is_whole(text) for text in document['conformance'].values())} of "
             f"{len(document['conformance'])} agree with their emulated twins",
             f"ops: {sum(not row['wrong'] for row in ops)} of {len(ops)} cases right; attention: "
             f"{sum(row['right'] for row in attention)} of {len(attention)}"]
    lines += [f"step {row['size']} {row['dtype']} B={row['B']} T={row['T']} {row['name']}: {row['ms']} ms, "
              f"{row['tokens_per_s']} tokens/s, MFU {percent(row['tflops'], compute)}" for row in document["step"]]
    if document["without_kernels"]:
        lines.append(f"ops without CUDA kernels: {', '.join(document['without_kernels'])}")
    lines += [f"not built: {where} ({what})" for where, what in document["not_built"].items()]
    return "\n".join(lines)


def is_whole(text):
    agree, of = text.split("/")
    return agree == of


def page(document):
    (compute, _), (memory, _) = peaks(document)
    lines = [f"# minillm's CUDA on {document['device'].get('name', 'an unknown GPU')}", "",
             *(f"- {line}" for line in summary(document).splitlines()), "", f"Device: {document['device']}", ""]
    lines += ["## Ops at the sizes of GPT-2 124M, T=1024, B=32 (B=2 with an axis of the vocabulary)", "", *table(
        ["op", "", "direction", "ms", "GB/s", "of the copy", "TFLOP/s", "of the peak"],
        [[row["op"], row["choice"], row["direction"], row["ms"], row["gbs"], percent(row["gbs"], memory),
          row["tflops"], percent(row["tflops"], compute)] for row in document["bandwidth"]])]
    lines += ["## Matmul", "", *table(
        ["", "dtype", "N x C x OC", "direction", "ms", "TFLOP/s", "of the peak"],
        [[row["name"], row["dtype"], f"{row['N']} x {row['C']} x {row['OC']}", row["direction"], row["ms"],
          row["tflops"], percent(row["tflops"], compute)] for row in document["matmul"]])]
    lines += ["## Attention", "", gpu_time.__doc__.split("\n\n")[1].strip(), "", *attention_table(document, compute)]
    lines += [f"Instructions: {document['conformance']}", "", f"Sanitizers: {document['sanitizer']}", "",
              f"Left out: {document['left_out']}", "", *(f"- {line}" for line in document["faults"])]
    return "\n".join(lines) + "\n"


def attention_table(document, peak):
    """TFLOP/s and percent of the peak: a line a size, a column a candidate."""
    rows = document["attention"]
    names = list(dict.fromkeys(row["name"] for row in rows))

    def size(row):
        return row["direction"], row["HS"], row["causal"], row["T"]
    found = []
    for key in dict.fromkeys(map(size, rows)):
        cells = {row["name"]: f"{row['tflops']} ({percent(row['tflops'], peak)})" for row in rows if size(row) == key}
        found.append([f"{key[0]} D={key[1]} {'causal' if key[2] else 'full'} T={key[3]}", *map(cells.get, names)])
    return table(["", *names], found)


def plot(document, path):
    """TFLOP/s of attention over T, causal; nothing without matplotlib or without timings."""
    rows = [row for row in document["attention"] if row["causal"]]
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    if not rows:
        return
    panels = [(direction, HS) for direction in ("forward", "backward") for HS in gpu_time.HEAD_SIZES]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharex=True)
    for axis, (direction, HS) in zip(axes.flat, panels):
        mine = [row for row in rows if (row["direction"], row["HS"]) == (direction, HS)]
        for name in dict.fromkeys(row["name"] for row in mine):
            points = [(row["T"], row["tflops"]) for row in mine if row["name"] == name]
            axis.plot(*zip(*points), marker="o", label=name)
        axis.set(title=f"{direction}, causal, D={HS}", xscale="log", xlabel="T", ylabel="TFLOP/s")
        if mine:
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
