"""What a run found: a table for the terminal, JSON for later, and the tables of two READMEs made from that JSON.

benchmarks/README.md holds every table, the README at the root the headline ratios alone.
"""
import json
from contextlib import suppress
from pathlib import Path

from minillm.storage.atomic import atomic_write, write_json

from .report_peers import PEERS, cpu_of, form_of, limits_of, peers_table, share_of

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).parent / "README.md"
FRONT = Path(__file__).parent.parent / "README.md"
LLAMA = {"rmsnorm", "residual_rmsnorm", "rope", "swiglu", "geglu", "relu_squared", "softcap", "token_embedding",
         "grouped_attention", "attention_decode", "projection"}      # results of these alone have a table of their own
BUSY = 0.3          # cores busy with something else above which the report warns
COLUMNS = {         # key of a row -> heading, format
    "op": ("op", "{}"), "dims": ("dims", "{}"), "dtype": ("dtype", "{}"), "direction": ("direction", "{}"),
    "candidate": ("candidate", "{}"), "median_ms": ("median ms", "{:,.3f}"), "spread": ("quartiles", "{}"),
    "gflops": ("GFLOP/s", "{:,.1f}"), "gbs": ("GB/s", "{:,.1f}"), "peak_percent": ("% of peak", "{:.0f}"),
    "bound": ("of", "{}"), "floor_percent": ("% of floor", "{:.0f}"), "x_numpy": ("x numpy", "{:.2f}"),
    "x_torch": ("x torch", "{:.2f}"), "x_minillm": ("x minillm", "{:.2f}"), "x_fair": ("x fair", "{:.2f}"),
    "x_transformers": ("x transformers fp32", "{:.2f}"), "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "mbs": ("MB/s", "{:,.1f}"), "documents_per_second": ("documents/s", "{:,.0f}"), "recall": ("recall", "{:.3f}"),
    "precision": ("precision", "{:.3f}"), "acceptance": ("accepted", "{:.1%}"),
    "tokens_per_pass": ("tokens/pass", "{:.2f}"), "x_theory": ("x theory", "{:.2f}"),
           "peak_rss_mb": ("peak MB", "{:,.0f}"),
    "memory_mb": ("MB more", "{:,.1f}"), "val_loss": ("loss", "{:.4f}"), "planted": ("planted", "{:,}"),
    "found": ("found", "{:,}"), "told_apart": ("told apart", "{:,}"), "runs": ("right pairs", "{:,}"),
    "false_alarms": ("false alarms", "{:,}")}
NUMBERS = {key for key, (_, form) in COLUMNS.items() if form != "{}"} | {"spread"}


def table(rows):
    """Rows as aligned text. What is the same in all rows stands above, and a column that nobody fills is left out."""
    rows = [row | {"spread": f"{row['low_ms']:,.3f}-{row['high_ms']:,.3f}"} for row in rows]
    if not rows:
        return "nothing was timed\n"
    shared = [key for key in ("dims", "dtype") if len({row[key] for row in rows}) == 1]
    keys = [key for key in COLUMNS if key not in shared and any(row.get(key) for row in rows)]
    cells = [[COLUMNS[key][0] for key in keys]] + [[cell(row, key) for key in keys] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(text.rjust(width) if key in NUMBERS else text.ljust(width)
                       for key, text, width in zip(keys, line, widths)).rstrip() for line in cells]
    heading = [", ".join(rows[0][key] for key in shared), ""] if shared else []
    return "\n".join(heading + lines) + "\n"


def cell(row, key):
    value = row.get(key)
    shown = value or key in ("median_ms", "spread", "found", "told_apart", "false_alarms") and value is not None
    return COLUMNS[key][1].format(value) if shown else "-"


def page(document):
    """Everything about a run for the terminal: machine, limits, tables, and what was wrong or skipped."""
    rows = document["rows"]
    models = list(dict.fromkeys(row["op"] for row in rows if is_model(row)))
    groups = [[row for row in rows if not is_model(row)], *([r for r in rows if r["op"] == op] for op in models)]
    parts = [about(document), *(table(group) for group in groups if group)]
    parts += [f"WRONG, not timed: {name}\n" + "\n".join(f"    {line}" for line in lines) + "\n"
              for name, lines in document["wrong"].items()]
    parts += [f"skipped: {name}: {why}\n" for name, why in document["skipped"].items()]
    return "\n".join(parts)


def is_model(row):
    """Rows of whole models (step, decode) are compared with minillm, rows of ops with NumPy and PyTorch."""
    return "x_minillm" in row


def about(document):
    """The machine and its limits in three lines, and a warning if it was busy with something else meanwhile."""
    machine, peaks = document["machine"], document["peaks"]
    limits = [f"{key} {peak['gflops']:,.0f} GFLOP/s ({peak['by']})" if "gflops" in peak else
              f"{key} {peak['gbs']:,.0f} GB/s ({peak['by']})" for key, peak in peaks.items()]
    others = machine.get("others")              # None: not known, so that the load before the run has to tell
    others = machine["load"] if others is None else others
    busy = f"BUSY MACHINE ({others} cores at other work): do not trust these figures\n" if others > BUSY else ""
    return (f"{busy}{machine['cpu']}, {machine['threads']} threads on {machine['cores']} cores, "
            f"{' '.join(machine['flags'])}\n"
            f"NumPy {machine['numpy']} ({machine['blas']}), PyTorch {machine['torch'] or 'not installed'}, "
            f"kernels {machine['minillm_kernels'] or 'not built'}, {document['date']}\n"
            f"limits measured in this run: {', '.join(limits) or 'none'}\n")


def save(document, path):
    """Write the results; the directory is made if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document, end="\n", indent=1)


def newest():
    """The newest file in results/ of --all, by the date inside; without one, the newest that `save` wrote. What has a
    table of its own comes after all others."""
    found = []
    for path in RESULTS.glob("*.json"):
        with suppress(ValueError):                      # some parts have results of a form of their own
            document = read(path)
            found.append((not own_table(document), path.stem.endswith("-all"), document["date"], path.name, path))
    if not found:
        raise FileNotFoundError("no results yet: run `python -m benchmarks --all --json` first")
    return max(found)[-1]


def read(path):
    """A results file as a dict. Raises ValueError for a file that is not one."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return {key: document[key] for key in ("date", "machine", "peaks", "rows", "wrong", "skipped")}
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a file of benchmark results") from None


def update_readmes(results, tables=TABLES, front=FRONT):
    """Put the tables of a results file between their markers. Raises ValueError if a marker is missing."""
    document = read(results)
    if name := own_table(document):
        return fill(tables, name, {"tokenizer": tokenizer_markdown, "gradcheck": gradcheck_markdown,
                                   "llama": markdown, "lora": markdown,
                                   "peers": lambda _: peers_markdown()}[name](document))
    fill(tables, "benchmarks", markdown(document))
    if "<!-- peers -->" in Path(tables).read_text(encoding="utf-8"):
        fill(tables, "peers", peers_markdown())
    if found := headlines(document):
        fill(front, "headlines", found)


def peers_markdown():
    """Whole models of all results beside every peer, with the limits that each run measured."""
    documents = []
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: (path.stem.endswith("-all"), path.name)):
        with suppress(ValueError):
            documents.append(read(path))                # of one day's runs that of everything counts
    models = [one for one in documents if any(row["op"] in ("step", "decode", "prefill") for row in one["rows"])]
    where = [f"- {cpu_of(one)}, {one['date']}, {one['machine']['threads']} threads: {limits_of(one)}" for one in models]
    return "\n".join(where) + "\n\n" + pipes(peers_table(models), left=3)


def own_table(document):
    """The name of the table that these results have to themselves, or None."""
    names = {row["op"].split()[0] for row in document["rows"]}
    if names and names <= LLAMA:
        return "llama"
    if names and names <= {"lora", "dpo"}:
        return "lora"
    if names and names <= {"decode", "prefill"}:
        return "peers"
    return names.pop() if names in ({"tokenizer"}, {"gradcheck"}) else None


def fill(path, name, text):
    """Write a text between the lines <!-- name --> and <!-- /name --> of a file."""
    old, begin, end = Path(path).read_text(encoding="utf-8"), f"<!-- {name} -->", f"<!-- /{name} -->"
    if not (old.count(begin) == old.count(end) == 1 and old.index(begin) < old.index(end)):
        raise ValueError(f"{path} must hold the lines {begin} and {end}, once each and in this order")
    with atomic_write(path, encoding="utf-8") as file:
        file.write(old[:old.index(begin) + len(begin)] + "\n" + text + old[old.index(end):])


def headlines(document):
    """Ours against the fastest of the others, model by model and precision by precision;
    "" where nobody else was timed."""
    lines = [["GPT-2", "", "minillm ms", "% of limit", "the fastest other", "ms", "% of limit", "speed-up"]]
    rows = [row for row in document["rows"] if is_model(row) and row["op"] != "attention_lengths"]
    for op, dims, half in dict.fromkeys((row["op"], row["dims"], "bf16" in row["candidate"]) for row in rows):
        group = sorted((row for row in rows if (row["op"], row["dims"], "bf16" in row["candidate"]) == (op, dims,
                                                                                                        half)),
                       key=lambda row: row["median_ms"])
        ours, theirs = (next((row for row in group if row["candidate"].startswith(names)
                              and form_of(row) in ("fp32", "bf16")), None) for names in ("minillm", PEERS))
        if ours and theirs:
            lines.append([f"{op}, {dims}", "bfloat16" if half else "float32", cell(ours, "median_ms"), percent(ours),
                          theirs["candidate"], cell(theirs, "median_ms"), percent(theirs),
                          f"{theirs['median_ms'] / ours['median_ms']:.2f}x"])
    threads = f"{document['machine']['threads']} threads on {document['machine']['cores']} cores"
    where = (f"{cpu_of(document)}, {threads}, {document['date']}; limits measured in the same run: "
             f"{limits_of(document) or 'none'}:\n\n")
    return where + pipes(lines, left=2) if len(lines) > 1 else ""


def percent(row):
    """Of the run's own limit: a plain read of the same bytes in decoding, else the peak."""
    return f"{share_of(row):.0f}" if share_of(row) else "-"


def markdown(document):
    """Where it was measured, ops, and whole models."""
    ladders = [row for row in document["rows"] if row.get("ladder")]
    lengths = [row for row in document["rows"] if row["op"] == "attention_lengths"]
    rows = [row for row in document["rows"] if row not in ladders and row not in lengths]
    ops = [row for row in rows if not is_model(row)]
    parts = ["\n".join(line + "  " for line in about(document).splitlines()) + "\n"]
    for dims, dtype in dict.fromkeys((row["dims"], row["dtype"]) for row in ops):
        parts.append(f"Medians in ms, {dims}, {dtype}:\n")
        parts.append(op_table([row for row in ops if (row["dims"], row["dtype"]) == (dims, dtype)]))
    for op, dims in dict.fromkeys((row["op"], row["dims"]) for row in rows if is_model(row)):
        parts.append(f"GPT-2, `{op}`, {dims}:\n")
        parts.append(model_table([row for row in rows if (row["op"], row["dims"]) == (op, dims)]))
    for op, dims in dict.fromkeys((row["op"], row["dims"]) for row in ladders):
        parts.append(f"What each idea buys, `{op}`, {dims}:\n")
        parts.append(ladder_table([row for row in ladders if (row["op"], row["dims"]) == (op, dims)]))
    if lengths:
        parts.append("Attention forward and backward as T grows (one sequence, 4 heads of 64, float32). "
                     "MB: what the process grew by:\n")
        parts.append(length_table(lengths))
    return "\n".join(parts)


def tokenizer_markdown(document):
    """Tokenizers: encoding, training, and the stream."""
    rows = {kind: [row for row in document["rows"] if row["op"] == f"tokenizer {kind}"]
            for kind in ("encode", "train", "stream")}
    parts = ["\n".join(line + "  " for line in about(document).splitlines()[:-1]) + "\n"]
    if rows["encode"]:
        parts.append("Encoding, MB/s:\n")
        parts.append(pivot(rows["encode"], lambda row: f"{row['dims']} {row['direction']}",
                           lambda row: f"{row['mbs']:,.0f}"))
    if rows["train"]:
        parts.append("Training on the mixed text, one thread, seconds (peak MB):\n")
        parts.append(pivot(rows["train"], lambda row: f"{int(row['dims'].split()[0]) // 1000}k tokens",
                           lambda row: f"{row['median_ms'] / 1e3:.2f} ({row['peak_rss_mb']:,.0f})"))
    parts += [f"A stream of {row['dims'].split(' 1 thread')[0]} through `encode_iterable`, an id at a time: "
              f"{row['mbs']:,.0f} MB/s, {row['peak_rss_mb']:,.0f} MB at most.\n" for row in rows["stream"]]
    return "\n".join(parts)


def gradcheck_markdown(document):
    """Gradient checkers: planted errors told apart from the same pairs without them, kind by kind, and false alarms."""
    names = list(dict.fromkeys(row["candidate"] for row in document["rows"]))
    planted = {name: [row for row in document["rows"] if row["candidate"] == name and "planted" in row]
               for name in names}
    right = {row["candidate"]: row for row in document["rows"] if "runs" in row}

    def sums(key):
        return [sum(row[key] for row in planted[name]) for name in names]

    kinds = [[same[0]["dims"], same[0]["planted"], *(row["told_apart"] for row in same)]
             for same in zip(*planted.values())]
    lines = [["error", "planted", *names], *kinds,
             ["**all**", sums("planted")[0], *sums("told_apart")],
             ["of these, in units of 1", sums("plain")[0], *sums("plain_told_apart")],
             ["found, whatever is said without the error", sums("planted")[0], *sums("found")],
             ["false alarms at the same pairs without the error", sums("planted")[0], *sums("false_alarms")],
             ["false alarms at other right pairs", "", *(f"{right[name]['false_alarms']:,} of {right[name]['runs']:,}"
                                                         for name in names)],
             ["ms a right pair, median", "", *(f"{right[name]['median_ms']:,.1f}" for name in names)]]
    about_lines = "\n".join(line + "  " for line in about(document).splitlines()[:-1])
    return f"{about_lines}\n\n" + pipes([list(map(str, line)) for line in lines], left=1)


def pivot(rows, column, value):
    """A line for each candidate, a column for each column(row)."""
    columns = list(dict.fromkeys(map(column, rows)))
    found = {(row["candidate"], column(row)): value(row) for row in rows}
    names = dict.fromkeys(row["candidate"] for row in rows)
    return pipes([["", *columns]] + [[name, *(found.get((name, key), "-") for key in columns)] for name in names],
                 left=1)


def op_table(rows):
    """One line for each op and direction, candidates side by side. Ours is the kernel, or the parts it is made of."""
    lines = [["op", "", "NumPy", "C++", "PyTorch", "C++ % of peak", "x NumPy", "x PyTorch"]]
    for op, direction in dict.fromkeys((row["op"], row["direction"]) for row in rows):
        found = {row["candidate"]: row for row in rows if (row["op"], row["direction"]) == (op, direction)}
        ours = found.get("cpu", found.get("auto", {}))
        share = f"{ours['peak_percent']:.0f} ({ours['bound']})" if ours.get("peak_percent") else "-"
        lines.append([f"`{op}`", direction, *(cell(found[name], "median_ms") if name in found else "-"
                                              for name in ("numpy", ours.get("candidate"), "torch")),
                      share, cell(ours, "x_numpy"), cell(ours, "x_torch")])
    return pipes(lines, left=2)


def ladder_table(rows):
    """One line for each variant, forward and backward side by side."""
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    lines = [["variant", *(f"{direction} {what}" for direction in directions for what in ("ms", "% of peak"))]]
    for candidate in dict.fromkeys(row["candidate"] for row in rows):
        found = {row["direction"]: row for row in rows if row["candidate"] == candidate}
        lines.append([f"`{candidate}`", *(cell(found[direction], key) if direction in found else "-"
                                          for direction in directions for key in ("median_ms", "peak_percent"))])
    return pipes(lines, left=1)


def length_table(rows):
    """One line for each T, candidates side by side."""
    names = dict.fromkeys(row["candidate"] for row in rows)
    lines = [["T", *(f"{name} {what}" for name in names for what in ("ms", "MB"))]]
    for T in dict.fromkeys(row["tokens"] for row in rows):
        found = {row["candidate"]: row for row in rows if row["tokens"] == T}
        lines.append([str(T), *(cell(found[name], key) if name in found else "-"
                                for name in names for key in ("median_ms", "memory_mb"))])
    return pipes(lines, left=0)


def model_table(rows):
    keys = ["candidate", "direction", "median_ms", "tokens_per_second", "mbs", "gflops", "gbs", "peak_percent",
            "floor_percent", "peak_rss_mb", "val_loss", "x_minillm", "x_transformers"]
    keys = [key for key in keys if any(row.get(key) for row in rows)]
    return pipes([[COLUMNS[key][0] for key in keys]] + [[cell(row, key) for key in keys] for row in rows], left=2)


def pipes(lines, left):
    """A Markdown table; the first `left` columns are text, the others numbers."""
    rule = ["---" if i < left else "---:" for i in range(len(lines[0]))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])
