"""The report of `minillm quickstart --full`, one HTML page: the same prompts before and after each stage; a picture of
each stage with its uncertainty, what was gained and what was paid; the rest folded away."""
from collections.abc import Iterable
from html import escape
from textwrap import shorten
from typing import NamedTuple

from ..evaluate.measure import comparison_text
from ..evaluate.safety import change_text, rate_text
from ..text.html_page import Bar, Section, bars, fold, page, table

STEP_POINTS, EXCERPT, CLUSTERS = 400, 240, 8
CHANCE = 0.05                       # p from which a change is said to be one that chance makes, too


class Measure(NamedTuple):
    """label: in a sentence; better: 1 where more is better, -1 where less is; bits: per byte, else a share."""
    label: str
    meaning: str
    better: int
    bits: bool = False

    def text(self, value: float) -> str:
        """A value as the report shows it."""
        return f"{value:.2f}" if self.bits else f"{value:.0%}"


MEASURES = {
    "bpb docs": Measure("bits per byte of documentation", "held-out documentation, lower is better", -1, True),
    "bpb stories": Measure("bits per byte of stories", "held-out stories, lower is better", -1, True),
    "followed": Measure("wishes followed", "share of what a request asks for that the answer holds", 1),
    "ends well": Measure("good ends", "share of answers with a good end, which the preferences ask for", 1),
    "repetition": Measure("repetition", "share of 4-grams that an answer repeats, lower is better", -1),
    "refused harmful": Measure(
        "cruel requests declined",
        "share of requests for cruel stories that are declined, which the preferences ask for", 1),
    "refused harmless": Measure(
        "harmless twins declined", "share of their harmless twins that are declined: it should be none", -1),
    "refused unseen": Measure(
        "cruel, unseen words, declined",
        "the same with deeds that no training named: does it know harm, or six words", 1),
    "refused unseen harmless": Measure(
        "harmless, unseen words, declined",
        "share of their harmless twins, with words just as new, that are declined", -1),
    "toxic": Measure(
        "insults", "share of the answers to requests for cruel stories that insult somebody (lower is better; measured "
        "with the extra toxicity)", -1)}


def stages_page(results: dict) -> str:
    """The stages as text."""
    stages = results["stages"]
    lines = [f"{'':<24}" + "".join(f"{stage['stage']:>26}" for stage in stages)]
    for name in MEASURES:
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
    stages, curves = [results["untrained"], *results["stages"]], results["curves"]
    titles = (("pretrain", "Pretraining", "The untrained model learns to continue both kinds of text."),
              ("sft", "Fine-tuning", "It learns to answer requests, from written answers."),
              ("dpo", "Preferences", "Of two answers to a request it learns to prefer one: a good end, and a refusal "
               "where a cruel story is asked for."))
    parts = [stage_part(before, after, *title, curves[title[0]])
             for before, after, title in zip(stages, stages[1:], titles)]
    return page("From raw text to an aligned model", lead(results),
                [Section("prompts", "The same prompts before and after", prompts_part(stages)),
                 Section("data", "Data", data_part(results["data"])), *parts,
                 Section("draft", "Speculative decoding", speculation_part(results["speculation"], curves["draft"])),
                 Section("all", "All figures", stages_part(results["stages"]) + refusals_part(results["stages"]))])


def lead(results: dict) -> str:
    """What came of it all, in four figures."""
    first, last = results["stages"][0], results["stages"][-1]
    tiles = "".join(f"<div><dt>{escape(MEASURES[name].label)}</dt><dd>{MEASURES[name].text(last[name])}</dd>"
                    f'<dd class="soft">{MEASURES[name].text(first[name])} after pretraining</dd></div>'
                    for name in ("followed", "refused harmful", "refused harmless", "bpb docs") if name in first)
    return (f'<p class="lead">Raw text, pretraining, fine-tuning, preferences: all in {results["seconds"] / 60:.1f} '
            "minutes. What the last model does, and what the first did:</p>"
            f'<dl class="tiles">{tiles}</dl>')


# ---- the same prompts ----

def prompts_part(stages: list[dict]) -> str:
    """Each prompt with the answers of all stages, the first of each kind unfolded."""
    shown = [prompt_part(request, [(stage["stage"], stage["examples"][i][1]) for stage in stages])
             for i, (request, _) in enumerate(stages[0]["examples"])]
    half = (len(shown) + 1) // 2                         # plain requests, then delicate ones: the first of each stays
    ahead, rest = [shown[0], shown[half]] if len(shown) > half else shown[:1], shown[1:half] + shown[half + 1:]
    return ("<p>Held-out requests, each answered once by every stage (temperature 0.7). The second asks for a cruel "
            "story.</p>" + "".join(ahead) + (fold(f"{len(rest)} more prompts", "".join(rest)) if rest else ""))


def prompt_part(request: str, answers: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(stage)}</dt><dd>{excerpt(text)}</dd>" for stage, text in answers)
    return f'<article class="prompt"><h3>“{escape(request)}”</h3><dl>{rows}</dl></article>'


def excerpt(text: str) -> str:
    """The text; if it is long, its beginning and its end, and all of it on demand."""
    text = text.strip()
    if len(text) <= 2 * EXCERPT:
        return escape(text) or '<span class="soft">(nothing)</span>'
    end = " ".join(text[-EXCERPT // 2:].split()[1:])
    return (escape(shorten(text, EXCERPT, placeholder=" … ") + end)
            + fold("the whole answer", f"<p>{escape(text)}</p>"))


# ---- a stage ----

def stage_part(before: dict, after: dict, anchor: str, title: str, what: str, log: list[dict]) -> Section:
    """Picture and sentence; the loss and all comparisons are folded."""
    names = {"first": before["stage"], "second": after["stage"]}
    changes = "".join(f"<li>{escape(comparison_text(names | change))}</li>" for change in after["changes"])
    return Section(anchor, title, f"<p>{what}</p>{verdict(before, after)}{picture(before, after)}"
                   + fold("loss and comparisons", curve(log) + f"<ul>{changes}</ul>"))


def verdict(before: dict, after: dict) -> str:
    """What a stage gained and what it paid, in a sentence; what may be chance is neither."""
    gained, paid, chance = list[str](), list[str](), list[str]()
    for change in after["changes"]:
        name, measure = change["task"], MEASURES[change["task"]]
        better = change["difference"] * measure.better > 0
        side = chance if change["p"] >= CHANCE else gained if better else paid
        side.append(measure.label if side is chance else
                    f"{measure.label} {measure.text(before[name])} → {measure.text(after[name])}")
    parts = [f"<strong>Gained:</strong> {escape('; '.join(gained) or 'nothing that was measured')}.",
             f"<strong>Paid:</strong> {escape('; '.join(paid) or 'nothing that was measured')}."]
    if chance:
        parts.append(f"No more than chance makes (p ≥ {CHANCE}): {escape('; '.join(chance))}.")
    return f"<p>{' '.join(parts)}</p>"


def picture(before: dict, after: dict) -> str:
    """Every measure that was taken before and after, with its 95% interval."""
    names = [name for name in MEASURES if name in before and name in after]
    most = 1.05 * max([1.0, *(high or 0.0 for stage in (before, after) for name, (_, high) in stage["between"].items()
                              if MEASURES[name].bits)])
    rows = "".join(pair(name, before, after, most if MEASURES[name].bits else 1.0) for name in names)
    return (f'<figure><div class="bars">{rows}</div><figcaption>Ring: {escape(before["stage"])}; dot: '
            f"{escape(after['stage'])}; lines: 95% intervals. Shares from 0 to 100%, bits per byte from 0 to "
            f"{most:.1f}.</figcaption></figure>")


def pair(name: str, before: dict, after: dict, most: float) -> str:
    """A row of the picture: the measure before as a ring, after as a dot."""
    measure, marks = MEASURES[name], '<line class="floor" x1="0" x2="100%" y1="11" y2="11"/>'
    for stage, kind, y in ((before, "was", 7), (after, "is", 15)):
        low, high = (stage[name] if end is None else end for end in stage["between"][name])
        marks += (f'<line class="{kind}" x1="{percent(low / most)}" x2="{percent(high / most)}" y1="{y}" y2="{y}"/>'
                  f'<circle class="{kind}" cx="{percent(stage[name] / most)}" cy="{y}" r="4"/>')
    label, figures = escape(measure.label), f"{measure.text(before[name])} → {measure.text(after[name])}"
    return (f'<div class="bar" title="{escape(measure.meaning)}"><span class="name">{label}</span><svg height="22" '
            f'role="img" aria-label="{label}: {figures}">{marks}</svg><span class="figures">{figures}</span></div>')


def percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def curve(rows: list[dict]) -> str:
    """Training loss as a line, validation loss as dots."""
    lines = [[(row["step"], row[name]) for row in rows if name in row] for name in ("train_loss", "val_loss")]
    points = [point for line in lines for point in line]
    if len(points) < 2:
        return "<p>too short to draw</p>"
    xs, ys = zip(*points)
    low, high = min(ys), max(ys)

    def place(x: float, y: float) -> str:
        return f"{100 * x / max(xs):.2f} {100 - 100 * (y - low) / ((high - low) or 1):.2f}"
    stride = max(1, len(lines[0]) // STEP_POINTS)
    line = " ".join(place(x, y) for x, y in lines[0][::stride])
    dots = "".join(f"M{place(x, y)}h0" for x, y in lines[1])
    return ('<figure><svg class="curve" viewBox="0 0 100 100" preserveAspectRatio="none" height="140" role="img" '
            f'aria-label="loss"><polyline points="{line}"/><path d="{dots}"/></svg><p class="ends"><span>step '
            f"{min(xs):,.0f}</span><span>step {max(xs):,.0f}</span></p><figcaption>Training loss as a line, validation "
            f"loss as dots, from {high:.3f} (top) to {low:.3f} (bottom).</figcaption></figure>")


# ---- data, speculation, and everything ----

def data_part(data: dict) -> str:
    """What each step left, and where the duplicates come from."""
    read, dropped = data["read"], data["duplicates"]
    labels = {"raw text": "read", "after cleaning": "clean", "after deduplication": "kept"}
    steps = bars([Bar(label, data[key]["bytes"] / max(1, read["bytes"]), size_text(data[key]))
                  for label, key in labels.items()])
    found = [f"{size['documents']:,} {reason}{'s' * (size['documents'] != 1)}" for reason, size in dropped.items()
             if size["documents"]]
    lost = sum(size["bytes"] for size in dropped.values())
    gone = (f"<strong>Gained:</strong> {escape(' and '.join(found))} left out, {lost / 1e6:.2f} MB that would have "
            "been learned more than once, and held out though learned." if found else "No document occurs twice.")
    reasons = bars([Bar(reason, count["documents"] / max(1, read["documents"]), size_text(count))
                    for reason, count in data["reasons"].items()], "warn")
    return (f"<p>{gone} The duplicates are real: besides the library's documentation the raw text holds "
            f"{data['help pages']:,} pages of Python's <code>help()</code>, one for each keyword, symbol and topic "
            "that it knows. Many names lead to one page, some with a line of their own below it.</p>"
            f"{steps}{clusters(data['clusters'])}{fold('what cleaning dropped', reasons)}")


def size_text(size: dict) -> str:
    return f"{size['documents']:,} · {size['bytes'] / 1e6:.2f} MB"


def clusters(found: list[dict]) -> str:
    """Some texts that occurred more than once, each with its copies, of which the first was kept."""
    largest = sorted(found, key=lambda cluster: -cluster["documents"])[:CLUSTERS]
    rows = [Bar(cluster["members"][0]["text"].partition("\n")[0][:60], cluster["documents"] / largest[0]["documents"],
                f"{cluster['documents']} documents",
                "".join(f"<pre>{escape(member['text'])}</pre>" for member in cluster["members"]))
            for cluster in largest]
    return f"<h3>Texts that were there several times</h3>{bars(rows)}" if rows else ""


def speculation_part(found: dict, log: list[dict]) -> str:
    """The speed-up of each prompt as a dot beside plain decoding."""
    speedups, middle = found["speed-ups"], found["speed-up"]
    most = 1.05 * max(1.0, *speedups)
    marks = "".join(f'<circle class="was" cx="{percent(x / most)}" cy="11" r="4"/>' for x in speedups)
    plain = percent(1 / most)
    picture = (f'<svg height="22" role="img" aria-label="speed-ups of {len(speedups)} prompts">'
               '<line class="floor" x1="0" x2="100%" y1="11" y2="11"/>'
               f'<line class="bound" x1="{plain}" x2="{plain}" y1="0" y2="22"/>'
               f'{marks}<circle class="is" cx="{percent(middle / most)}" cy="11" r="5"/></svg>')
    gained = f"{middle:.2f} times the speed of plain decoding" if middle > 1 else "no speed"
    texts = "the greedy texts are the same" if found["texts equal"] else "the greedy texts differ, which is a fault"
    rows = [(name, f"{value:.3f}" if isinstance(value, float) else "yes" if value is True else f"{value:,}")
            for name, value in found.items() if not isinstance(value, list)]
    return (f"<p>A small draft model proposes tokens, which the aligned model verifies several at a time; {texts}. "
            f"<strong>Gained:</strong> {gained} ({min(speedups):.2f} to {max(speedups):.2f} over {len(speedups)} "
            f"prompts). <strong>Paid:</strong> training a draft of {found['draft parameters']:,} parameters, and its "
            f'memory.</p><figure>{picture}<p class="ends"><span>0</span><span>{most:.2f}</span></p><figcaption>'
            "Speed-up of each prompt (rings) and their median (dot); dashed: plain decoding.</figcaption></figure>"
            + fold("loss and figures", curve(log) + table(("", ""), rows)))


def stages_part(stages: list[dict]) -> str:
    """A row a measure, with its difference from the stage before."""
    rows = []
    for name in MEASURES:
        cells = [name]
        for before, stage in zip([None, *stages], stages):
            change = f" ({stage[name] - before[name]:+.3f})" if before and name in stage and name in before else ""
            cells.append(f"{stage[name]:.3f}{change}" if name in stage else "-")
        rows.append(cells)
    meanings = "".join(f"<li>{escape(name)}: {escape(measure.meaning)}</li>" for name, measure in MEASURES.items())
    return fold("measures after each stage",
                table(("", *(stage["stage"] for stage in stages)), rows) + f"<ul>{meanings}</ul>")


def refusals_part(stages: list[dict]) -> str:
    """All rates of refusals; whether the changes may be chance."""
    rows = [(f"{stage['stage']}: {row['category']}", row["prompts"], *(rate_text(row[m]) for m in ("refused", "toxic")))
            for part in ("rates", "outside") for stage in stages for row in stage["safety"][part]]
    changes = "".join(f"<li>{escape(stage['stage'])}: {escape(change_text(d))}</li>" for stage in stages
                      for d in stage["safety"]["changes"] if d["measure"] != "personal")
    return fold("declining what is harmful, and nothing else",
                f"{table(('', 'prompts', 'refused', 'toxic'), rows)}<ul>{changes}</ul><p>All on the test half of the "
                "held-out prompts: the settings were chosen on the other half, which shares no name with it, and no "
                "deed in the same scene. Unseen words: deeds that no training named. Red team: the bundled prompts of "
                "<code>minillm safety</code>, about which a teller of stories knows nothing.</p>")
