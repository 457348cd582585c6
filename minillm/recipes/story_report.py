"""The report of `minillm quickstart --full`: a table of the stages, loss curves, sampled answers; plain HTML."""
from collections.abc import Iterable, Sequence
from html import escape

from ..evaluate.safety import change_text, rate_text

WIDTH, HEIGHT, STEP_POINTS = 520, 160, 400
STYLE = ("body{font:16px/1.5 sans-serif;max-width:58rem;margin:2rem auto;padding:0 1rem;color:#222}"
         "table{border-collapse:collapse}td,th{padding:.25rem .9rem;text-align:right;border-bottom:1px solid #ddd}"
         "td:first-child,th:first-child{text-align:left}blockquote{"
         "background:#f5f5f5;padding:.6rem 1rem;margin:.5rem 0}svg{background:#fafafa}")
MEANINGS = {"bpb docs": "bits per byte of held-out documentation (lower is better)",
            "bpb stories": "bits per byte of held-out stories (lower is better)",
            "followed": "share of what a request asks for that the answer holds",
            "ends well": "share of answers with a good end, which the preferences ask for",
            "repetition": "share of 4-grams that an answer repeats",
            "refused harmful": "share of requests for cruel stories that are declined, which the preferences ask for",
            "refused harmless": "share of their harmless twins that are declined: it should be none",
            "refused unseen": "the same with deeds that no training named: does it know harm, or six words",
            "refused unseen harmless": "share of their harmless twins, with words just as new, that are declined",
            "toxic": "share of the answers to requests for cruel stories that insult somebody (lower is better; "
                     "measured with the extra `toxicity`)"}
REFUSED = tuple(name for name in MEANINGS if name.startswith("refused"))


def stages_page(results: dict) -> str:
    """The stages as text."""
    stages = results["stages"]
    lines = [f"{'':<24}" + "".join(f"{stage['stage']:>26}" for stage in stages)]
    for name in MEANINGS:
        lines.append(f"{name:<24}" + "".join(f"{figure(stage, name):>26}" for stage in stages))
    s = results["speculation"]
    lines.append(f"speculative decoding: {s['acceptance']:.0%} of draft tokens accepted, {s['tokens per pass']:.2f} "
                 f"tokens a pass, {s['speed-up']:.2f} times plain decoding")
    return "\n".join(lines)


def figure(stage: dict, name: str) -> str:
    """A measure of a stage with its interval."""
    if name not in stage:
        return "-"
    low, high = stage.get("between", {}).get(name, (None, None))
    return f"{stage[name]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


def report_html(results: dict) -> str:
    """The whole page."""
    parts = ["<h1>From raw text to an aligned model</h1>", data_part(results["data"]), stages_part(results["stages"]),
             refusals_part(results["stages"])]
    parts += [f"<h2>{title}</h2>{curve(results['curves'][name])}" for name, title in
              (("pretrain", "Pretraining loss"), ("sft", "Fine-tuning loss"), ("dpo", "Preference loss"),
               ("draft", "Distillation loss"))]
    parts += [answers_part(results["stages"]), speculation_part(results["speculation"])]
    parts.append(f"<p>Everything took {results['seconds'] / 60:.1f} minutes.</p>")
    return (f"<!doctype html><html lang='en'><meta charset='utf-8'><title>minillm, the whole way</title><style>{STYLE}"
            f"</style>{''.join(parts)}</html>\n")


def table(head: Iterable, rows: Iterable[Iterable]) -> str:
    def line(cells: Iterable, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def data_part(data: dict) -> str:
    rows = [(name, f"{data[key]['documents']:,}", f"{data[key]['bytes'] / 1e6:.2f}")
            for name, key in (("read", "read"), ("after cleaning", "clean"), ("after deduplication", "kept"))]
    reasons = [(reason, f"{count['documents']:,}", f"{count['bytes'] / 1e6:.2f}")
               for reason, count in data["reasons"].items()]
    return ("<h2>Data</h2>" + table(("", "documents", "MB"), rows) + "<h3>Dropped by cleaning</h3>"
            + table(("reason", "documents", "MB"), reasons))


def stages_part(stages: list[dict]) -> str:
    """A row a stage, with its difference from the stage before."""
    rows = []
    for before, stage in zip([None, *stages], stages):
        cells = [stage["stage"]]
        for name in MEANINGS:
            change = f" ({stage[name] - before[name]:+.3f})" if before and name in stage and name in before else ""
            cells.append(f"{stage[name]:.3f}{change}" if name in stage else "-")
        rows.append(cells)
    meanings = "".join(f"<li>{escape(name)}: {escape(meaning)}</li>" for name, meaning in MEANINGS.items())
    return "<h2>Stages</h2>" + table(("", *MEANINGS), rows) + f"<ul>{meanings}</ul>"


def refusals_part(stages: list[dict]) -> str:
    """Refusals after each stage as bars with their intervals; all rates; whether the changes may be chance."""
    rows = [(f"{stage['stage']}: {row['category']}", row["prompts"], *(rate_text(row[m]) for m in ("refused", "toxic")))
            for part in ("rates", "outside") for stage in stages for row in stage["safety"][part]]
    changes = "".join(f"<li>{escape(stage['stage'])}: {escape(change_text(d))}</li>" for stage in stages
                      for d in stage["safety"]["changes"] if d["measure"] != "personal")
    return (f"<h2>Declining what is harmful, and nothing else</h2>{bars(stages, REFUSED)}"
            f"{table(('', 'prompts', 'refused', 'toxic'), rows)}<ul>{changes}</ul><p>All on the test half of the "
            "held-out prompts: the settings were chosen on the other half, which shares no name with it, and no deed "
            "in the same scene. Unseen words: deeds that no training named. Red team: the bundled prompts of "
            "<code>minillm safety</code>, about which a teller of stories knows nothing.</p>")


def bars(stages: list[dict], names: Sequence[str]) -> str:
    """Shares from 0 to 1 as bars, a row a stage and measure, with their intervals as lines."""
    parts: list[str] = []
    left, step = 230, 22
    for row, (stage, name) in enumerate((stage, name) for stage in stages for name in names):
        y, (low, high) = step * row + 4, stage["between"][name]
        parts.append(f"<text x='0' y='{y + 12}' font-size='12'>{escape(stage['stage'])}: {escape(name)}</text>"
                     f"<rect x='{left}' y='{y}' width='{WIDTH / 2 * stage[name]:.1f}' height='14' fill='#6a8caf'/>"
                     f"<path d='M{left + WIDTH / 2 * low:.1f} {y + 7}H{left + WIDTH / 2 * high:.1f}' stroke='#c00'/>")
    height = step * len(parts) + 4
    return f"<svg width='{left + WIDTH // 2 + 8}' height='{height}'>{''.join(parts)}</svg>"


def answers_part(stages: list[dict]) -> str:
    parts = [f"<h2>One request, after each stage</h2><p>{escape(stages[0]['example']['request'])}</p>"]
    parts += [f"<h3>{escape(s['stage'])}</h3><blockquote>{escape(s['example']['answer'])}</blockquote>" for s in stages]
    return "".join(parts)


def speculation_part(found: dict) -> str:
    rows = [(name, f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if value is not True else "yes")
            for name, value in found.items()]
    return "<h2>Speculative decoding with a distilled draft</h2>" + table(("", ""), rows)


def curve(rows: list[dict]) -> str:
    """Training loss as a line, validation loss as dots."""
    lines = [[(row["step"], row[name]) for row in rows if name in row] for name in ("train_loss", "val_loss")]
    points = [point for line in lines for point in line]
    if len(points) < 2:
        return "<p>too short to draw</p>"
    xs, ys = zip(*points)
    low, high = min(ys), max(ys)

    def place(x: float, y: float) -> str:
        return f"{WIDTH * x / max(xs):.1f},{HEIGHT - HEIGHT * (y - low) / ((high - low) or 1):.1f}"
    stride = max(1, len(lines[0]) // STEP_POINTS)
    dots = "".join(f"<circle cx='{p.partition(',')[0]}' cy='{p.partition(',')[2]}' r='4' fill='#c00'/>"
                   for p in (place(x, y) for x, y in lines[1]))
    line = " ".join(place(x, y) for x, y in lines[0][::stride])
    return (f"<svg width='{WIDTH + 60}' height='{HEIGHT + 8}' viewBox='0 -4 {WIDTH + 60} {HEIGHT + 8}'>"
            f"<polyline fill='none' stroke='#6a8caf' stroke-width='1.5' points='{line}'/>{dots}"
            f"<text x='{WIDTH + 6}' y='10' font-size='11'>{high:.3f}</text><text x='{WIDTH + 6}' y='{HEIGHT}' "
            f"font-size='11'>{low:.3f}</text></svg>")
