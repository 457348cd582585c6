"""The cleaning report as one HTML page without scripts: what was dropped and why, with samples; each score's histogram
with its bounds."""
import re
from html import escape

from ...text.html_page import Bar, Section, bars, fold, page

HEIGHT = 90


def html_page(report: dict) -> str:
    """A whole HTML page from what pipeline.clean returns."""
    kept, read = report["kept"], report["read"]
    share = kept["documents"] / read["documents"] if read["documents"] else 0.0
    lead = (f'<p class="lead">Kept {kept["documents"]:,} of {read["documents"]:,} documents, {size_text(kept)} of '
            f"{size_text(read)}.</p>" + bars([Bar("kept", share, f"{share:.1%}")]))
    return page("Cleaning report", lead, [
        Section("dropped", "Why documents were dropped", reasons(report)),
        Section("not-read", "Not read", counted(report["input"]["skipped"], "warn", report["input"]["examples"])),
        Section("masked", "Masked personal data", counted(report["masked"])),
        Section("rules", "What each rule drops by itself", rules(report["scores"])),
        Section("scores", "Scores and their bounds", scores(report["scores"]))])


def size_text(size):
    return f"{size['bytes'] / 1e6:,.2f} MB" if size["bytes"] >= 1e5 else f"{size['bytes'] / 1e3:,.1f} kB"


def short(number):
    """Four digits; thousands with commas, not as 1.2e+04."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def reasons(report):
    """A bar a reason, of the documents read, and the beginnings of some that it dropped."""
    read = report["read"]["documents"]
    rows = [Bar(reason, count["documents"] / read, f"{count['documents']:,} · {size_text(count)}",
                "".join(f'<p class="soft">{escape(e["name"])}</p><pre>{escape(e["text"])}</pre>'
                        for e in report["excerpts"].get(reason, ())))
            for reason, count in report["dropped"].items()]
    if not rows:
        return "<p>None was.</p>"
    return ("<p>Each document counts for the first rule that it breaks. Bars are shares of all documents read; open a "
            "row for the beginnings of some of its documents.</p>" + bars(rows, "warn"))


def counted(found, kind="", names=None):
    """Bars of counts, the largest full; the names that belong to a row are shown inside it."""
    most, names = max(found.values(), default=0), names or {}
    rows = [Bar(key, count / most, f"{count:,}", "".join(f"<p>{escape(name)}</p>" for name in names.get(key, ())))
            for key, count in sorted(found.items(), key=lambda item: -item[1])]
    return bars(rows, kind) if rows else ""


def rules(found):
    """An overview of the scores, those that drop most first; each leads to its histogram."""
    ordered = sorted(found.items(), key=lambda item: -item[1]["dropped"])
    rows = [Bar(name, score["dropped"], f"{score['dropped']:.1%}", link=anchor(name)) for name, score in ordered]
    return bars(rows, "warn") if rows else ""


def anchor(name):
    return "score-" + re.sub(r"[^\w-]", "-", name)


def scores(found):
    return '<div class="cards">' + "".join(score(*item) for item in found.items()) + "</div>" if found else ""


def score(name, found):
    """A histogram with its bounds, and the sweep: what other bounds would drop."""
    side = "low" if found["high"] is None else "high"
    steps = bars([Bar(f"{side} bound {short(step[side])}", step["dropped"], f"{step['dropped']:.1%}")
                  for step in found["sweep"]], "warn")
    low, high = ("any" if found[bound] is None else format(found[bound], ",g") for bound in ("low", "high"))
    return (f'<figure id="{anchor(name)}"><h3>{escape(name)}</h3><p class="soft">bounds {low} to {high}: drops '
            f"{found['dropped']:.1%} by itself</p>{histogram(name, found)}"
            + fold("what other bounds would drop", steps) + "</figure>")


def histogram(name, found):
    """Bars of the counts, those outside the bounds in another colour; the bounds as dashed lines."""
    low, high, width = found["from"], found["to"], 100 / len(found["counts"])
    parts, top = [], max(found["counts"])
    for i, count in enumerate(found["counts"]):
        if count:
            start, end = (low + (high - low) * (i + side) / len(found["counts"]) for side in (0, 1))
            height = max(1.0, HEIGHT * count / top)
            parts.append(f'<rect class="{"out" if outside((start + end) / 2, found) else "bin"}" x="{i * width:.2f}%" '
                         f'y="{HEIGHT - height:.1f}" width="{0.85 * width:.2f}%" height="{height:.1f}">'
                         f"<title>{count:,} documents from {short(start)} to {short(end)}</title></rect>")
    for bound in (found["low"], found["high"]):
        if bound is not None and low <= bound <= high:
            x = f"{100 * (bound - low) / (high - low):.2f}%"
            parts.append(f'<line class="bound" x1="{x}" x2="{x}" y1="-4" y2="{HEIGHT}"/>')
    return (f'<svg height="{HEIGHT + 1}" role="img" aria-label="histogram of {escape(name)}">{"".join(parts)}'
            f'<line class="floor" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/></svg>'
            f'<p class="ends"><span>{short(low)}</span><span>{short(high)}</span></p>')


def outside(value, found):
    return ((found["low"] is not None and value < found["low"])
            or (found["high"] is not None and value > found["high"]))
