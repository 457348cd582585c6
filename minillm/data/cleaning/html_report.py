"""The cleaning report as one HTML page without scripts: each score's histogram with its bounds drawn."""
from html import escape

WIDTH, HEIGHT = 420, 90
STYLE = ("body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
         "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
         "td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:.5rem;white-space:pre-wrap}"
         "svg{background:#fafafa}h3{margin-bottom:.2rem}")


def html_page(report: dict) -> str:
    """A whole HTML page from what pipeline.clean returns."""
    kept, read = report["kept"], report["read"]
    body = [f"<h1>Cleaning report</h1><p>Kept {kept['documents']:,} of {read['documents']:,} documents, "
            f"{kept['bytes'] / 1e6:,.2f} of {read['bytes'] / 1e6:,.2f} MB.</p>", reasons(report), masked(report)]
    body += ["<h2>Scores</h2>", *(score(name, found) for name, found in report["scores"].items())]
    return (f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Cleaning report</title><style>{STYLE}</style>"
            + "\n".join(body) + "</html>\n")


def table(head, rows):
    cells = ["<tr>" + "".join(f"<th>{escape(str(cell))}</th>" for cell in head) + "</tr>"]
    cells += ["<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "".join(cells) + "</table>"


def reasons(report):
    """Why documents were dropped, with excerpts."""
    rows = [(reason, f"{count['documents']:,}", f"{count['bytes'] / 1e6:,.2f}")
            for reason, count in report["dropped"].items()]
    rows += [(f"not read: {reason}", f"{count:,}", "") for reason, count in report["input"]["skipped"].items()]
    parts = ["<h2>Dropped</h2>", table(("reason", "documents", "MB"), rows)]
    for reason, examples in report["excerpts"].items():
        parts.append(f"<details><summary>{escape(reason)}</summary>" + "".join(
            f"<p>{escape(e['name'])}</p><pre>{escape(e['text'])}</pre>" for e in examples) + "</details>")
    return "".join(parts)


def masked(report):
    if not report["masked"]:
        return ""
    return "<h2>Masked</h2>" + table(("kind", "times"), sorted(report["masked"].items()))


def score(name, found):
    """A histogram with its bounds as red lines, and the sweep."""
    side = "low" if found["high"] is None else "high"
    rows = [(f"{step[side]:.4g}", f"{step['dropped']:.1%}") for step in found["sweep"]]
    low, high = ("any" if found[bound] is None else format(found[bound], "g") for bound in ("low", "high"))
    return (f"<h3>{escape(name)}</h3><p>bounds {low} to {high}: drops {found['dropped']:.1%} by itself</p>"
            + histogram(found) + table((f"{side} bound", "would drop"), rows))


def histogram(found):
    top, bars, n = max(found["counts"]), [], len(found["counts"])
    for i, count in enumerate(found["counts"]):
        height = HEIGHT * count / top
        bars.append(f"<rect x='{i * WIDTH / n:.1f}' y='{HEIGHT - height:.1f}' width='{WIDTH / n - 1:.1f}' "
                    f"height='{height:.1f}' fill='#6a8caf'/>")
    for bound in (found["low"], found["high"]):
        if bound is not None and found["from"] <= bound <= found["to"]:
            x = WIDTH * (bound - found["from"]) / (found["to"] - found["from"])
            bars.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{HEIGHT}' stroke='#c00' stroke-width='2'/>")
    labels = (f"<text x='2' y='{HEIGHT + 14}' font-size='11'>{found['from']:.4g}</text><text x='{WIDTH - 2}' "
              f"y='{HEIGHT + 14}' font-size='11' text-anchor='end'>{found['to']:.4g}</text>")
    return f"<svg width='{WIDTH}' height='{HEIGHT + 18}'>{''.join(bars)}{labels}</svg>"
