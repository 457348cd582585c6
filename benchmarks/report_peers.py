"""Whole models beside every peer, machine by machine: what holds elsewhere (% of a limit of the same run) stands beside
what does not (ratios, which depend on the CPU and on how well each library knows it)."""
from collections.abc import Iterable

GENERATIONS = {("25", "16"): "Zen 4", ("25", "17"): "Zen 4", ("26", "2"): "Zen 5"}      # AMD's family, model
PEERS = ("torch eager", "torch compile", "transformers", "ctranslate2", "llama.cpp", "onnxruntime")
FORMS = ("fp32", "bf16", "int8", "int4")
TASKS = ("step", "decode", "prefill")
NOT_MEASURED = "not measured"


def cpu_of(document: dict) -> str:
    """The CPU's name with its generation, which the name alone does not say: "AMD EPYC (Zen 5)"."""
    machine = document["machine"]
    family, model, *_ = f"{machine.get('family', '')}/".split("/")
    generation = GENERATIONS.get((family, model), f"family {family} model {model}" if family and model else "")
    return machine["cpu"] + (f" ({generation})" if generation else "")


def limits_of(document: dict) -> str:
    """The limits that the run measured itself, in words."""
    return ", ".join(f"{key} {peak.get('gflops', peak.get('gbs')):,.0f} {'GFLOP/s' if 'gflops' in peak else 'GB/s'}"
                     for key, peak in document["peaks"].items())


def form_of(row: dict) -> str:
    return next((form for form in FORMS if form in row["candidate"].split()), "fp32")


def share_of(row: dict) -> float | None:
    """% of the limit of the same run: of a plain read of as many bytes where there was one, else of the peak."""
    return row.get("floor_percent") or row.get("peak_percent")


def cells(documents: Iterable[dict]) -> dict[tuple, dict[str, str]]:
    """{(task, dims, form, machine): {who: text}}; of several runs on a machine the newest counts."""
    found: dict[tuple, dict[str, str]] = {}
    for document in sorted(documents, key=lambda document: document["date"]):
        for row in sorted(document["rows"], key=lambda row: -row["median_ms"]):     # a peer's fastest kind last
            who = next((name for name in ("minillm", *PEERS) if row["candidate"].startswith(name)), None)
            if row["op"] not in TASKS or who is None or "x_minillm" not in row:
                continue
            place = (row["op"], row["dims"], form_of(row), cpu_of(document))
            found.setdefault(place, {})[who] = text_of(row, who, ours_of(document, row))
    return {place: found[place] for place in sorted(found, key=order) if "minillm" in found[place]}


def order(place: tuple) -> tuple:
    task, dims, form, machine = place
    return TASKS.index(task), dims, FORMS.index(form), machine


def ours_of(document: dict, row: dict) -> float | None:
    """Our time in the same run for the same work in the same form."""
    return next((other["median_ms"] for other in document["rows"] if other["candidate"].startswith("minillm")
                 and (other["op"], other["dims"], form_of(other)) == (row["op"], row["dims"], form_of(row))), None)


def text_of(row: dict, who: str, ours: float | None) -> str:
    """"18.3 ms, 93%" for ours; of a peer its time over ours stands before its share."""
    share = f", {share_of(row):.0f}%" if share_of(row) else ""
    ratio = f", {row['median_ms'] / ours:.2f}x" if ours and who != "minillm" else ""
    return f"{row['median_ms']:,.1f}{ratio}{share}"


def peers_table(documents: list[dict]) -> list[list[str]]:
    """A line for each work, form and machine, a column for each peer."""
    lines = [["GPT-2", "form", "CPU", "minillm ms, % of limit", *(f"{peer}: ms, x ours, %" for peer in PEERS)]]
    for (task, dims, form, machine), known in cells(documents).items():
        lines.append([f"{task}, {dims}", form, machine, known["minillm"],
                      *(known.get(peer, NOT_MEASURED) for peer in PEERS)])
    return lines
