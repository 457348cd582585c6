"""The few marks that the book's figures are made of, as SVG: axes with ticks, lines, points, bars, areas, text.

Numbers are rounded to a hundredth of a point, so the same data give the same bytes. Lines are told apart by dashes,
too, for print without color; text and axes take the page's color (currentColor), which is light in a dark theme.
"""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

INK, SOFT, RULE = "currentColor", "#6e7681", "#8b949e"
COLORS = ("#1f6feb", "#d1495b", "#2a9d8f", "#7b5ea7", "#c98a1b", "#6e7681")
DASHES = ("", "6 3", "2 2", "7 2 2 2", "1 2", "10 4")
FONT = "Libertinus Serif, Georgia, serif"
WIDTH, SIZE, SCALE = 420, 10, 1.25      # of a figure and its letters; of its units in CSS pixels, 0.75 points each
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def svg(title: str, height: float, *parts: str, width: float = WIDTH) -> str:
    """The whole file. title: a sentence for those who cannot see it."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{SCALE * width:g}" '
            f'height="{SCALE * height:g}" role="img" font-family="{FONT}" font-size="{SIZE:g}" fill="{INK}">\n'
            f"<title>{escape(title)}</title>\n" + "\n".join(parts) + "\n</svg>\n")


def text(x: float, y: float, words: str, anchor: str = "start", color: str = INK, size: float = SIZE,
         turn: float = 0, weight: str = "") -> str:
    """Words at a place; anchor: start, middle or end. turn: degrees clockwise."""
    if not words:
        return ""
    turned = f' transform="rotate({turn:g} {x:.2f} {y:.2f})"' if turn else ""
    bold = f' font-weight="{weight}"' if weight else ""
    return (f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" font-size="{size:g}" fill="{color}"{bold}{turned}>'
            f'{escape(words, quote=False)}</text>')


def rect(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", opacity: float = 1) -> str:
    return (f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="0.6"' + (f' fill-opacity="{opacity:g}"' if opacity < 1 else "") + "/>")


def path(points: Iterable[tuple[float, float]], color: str = INK, width: float = 1.2, dash: str = "",
         fill: str = "none") -> str:
    """A line through points of the page."""
    steps = " ".join(f"{'L' if i else 'M'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(points))
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    faint = ' stroke-opacity="0.45"' if color == RULE else ""                   # seen on light and on dark paper
    return (f'<path d="{steps}" fill="{fill}" stroke="{color}" stroke-width="{width:g}"{dashed}{faint} '
            'stroke-linejoin="round"/>')


def arrow(x1: float, y1: float, x2: float, y2: float, color: str = SOFT) -> str:
    """A line with a head at its end."""
    angle = math.atan2(y2 - y1, x2 - x1)
    head = [(x2 - 5 * math.cos(angle + side), y2 - 5 * math.sin(angle + side)) for side in (0.4, -0.4)]
    return path([(x1, y1), (x2, y2)], color, 0.9) + path([head[0], (x2, y2), head[1]], color, 0.9)


def cells(rows: Sequence[Sequence[float]], x: float, y: float, side: float, color: str = COLORS[0]) -> str:
    """A matrix of numbers from 0 to 1 as squares of that opacity; one path for each opacity, none for 0."""
    squares: dict[float, list[str]] = {}
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            squares.setdefault(round(float(value), 2), []).append(
                f"M{x + j * side:.2f} {y + i * side:.2f}h{side:g}v{side:g}h-{side:g}z")
    return "".join(f'<path d="{"".join(parts)}" fill="{color}" fill-opacity="{value:g}"/>'
                   for value, parts in sorted(squares.items()) if value > 0)


def label(value: float) -> str:
    """A tick's number: 0.001 as 10⁻³ from a thousand up or down."""
    if value and (abs(value) >= 10 ** 4 or abs(value) < 10 ** -2):
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        digit = value / 10.0 ** exponent
        power = "10" + str(exponent).translate(SUPERSCRIPTS)
        return power if abs(digit - 1) < 1e-6 else f"{digit:.3g} · {power}"
    return f"{value:,.6g}".replace("-", "−")


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers within [low, high]."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * n for n in (1, 2, 2.5, 5, 10) if unit * n >= raw * 0.999)
    return [round(k * step, 10) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def powers(low: float, high: float, count: int = 7) -> list[float]:
    """At most about `count` powers of ten within [low, high]."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0 ** k for k in range(first, last + 1, max(1, -(-(last - first) // count)))]


@dataclass
class Axes:
    """A rectangle of the page with a scale on each axis; what is drawn through it is cut at its frame's limits.

    x, y: (low, high); log: "", "x", "y" or "xy"; place: left, top, width, height on the page.
    """
    x: tuple[float, float]
    y: tuple[float, float]
    log: str = ""
    place: tuple[float, float, float, float] = (52, 14, 350, 190)
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The page's point of a value; values outside are moved to the edge."""
        left, top, width, height = self.place
        return left + width * self.share("x", x, self.x), top + height * (1 - self.share("y", y, self.y))

    def share(self, axis: str, value: float, limits: tuple[float, float]) -> float:
        low, high = limits
        if axis in self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def frame(self, xlabel: str, ylabel: str, title: str = "", xticks: Sequence[float] | None = None,
              yticks: Sequence[float] | None = None, xnames: Sequence[str] | None = None) -> "Axes":
        """Ticks, grid lines, labels with their units, a title above."""
        left, top, width, height = self.place
        for value in self.ticks("y", self.y) if yticks is None else yticks:
            _, y = self.at(self.x[0], value)
            self.parts += [path([(left, y), (left + width, y)], RULE, 0.6),
                           text(left - 5, y + 3.5, label(value), "end", SOFT, 9)]
        for i, value in enumerate(self.ticks("x", self.x) if xticks is None else xticks):
            x, _ = self.at(value, self.y[0])
            self.parts += [path([(x, top + height), (x, top + height + 3)], SOFT, 0.6),
                           text(x, top + height + 13, xnames[i] if xnames else label(value), "middle", SOFT, 9)]
        self.parts += [path([(left, top), (left, top + height), (left + width, top + height)], SOFT, 0.8),
                       text(left + width / 2, top + height + 27, xlabel, "middle"),
                       text(left - 38, top + height / 2, ylabel, "middle", turn=-90)]
        if title:
            self.parts.append(text(left + width / 2, top - 6, title, "middle", weight="bold"))
        return self

    def ticks(self, axis: str, limits: tuple[float, float]) -> list[float]:
        return powers(*limits) if axis in self.log else round_ticks(*limits)

    def line(self, xs: Iterable[float], ys: Iterable[float], n: int = 0, width: float = 1.4, dash: str | None = None,
             color: str = "") -> "Axes":
        """A curve in the n-th color and dash."""
        points = [self.at(float(x), float(y)) for x, y in zip(xs, ys)]
        self.parts.append(path(points, color or COLORS[n], width, DASHES[n] if dash is None else dash))
        return self

    def points(self, xs: Iterable[float], ys: Iterable[float], n: int = 0, radius: float = 2.4) -> "Axes":
        """Dots in the n-th color, even ones filled."""
        for x, y in zip(xs, ys):
            cx, cy = self.at(float(x), float(y))
            fill = COLORS[n] if n % 2 == 0 else "none"
            self.parts.append(f'<circle cx="{cx:.2f}" cy="{cy:.2f}" r="{radius:g}" fill="{fill}" '
                              f'stroke="{COLORS[n]}"/>')
        return self

    def bar(self, x: float, low: float, high: float, width: float, n: int = 0, opacity: float = 1) -> "Axes":
        """An upright bar, `width` points wide, around x from low to high."""
        middle, bottom = self.at(x, low)
        _, top = self.at(x, high)
        self.parts.append(rect(middle - width / 2, top, width, bottom - top, COLORS[n], opacity=opacity))
        return self

    def level(self, y: float, words: str, n: int = 5, anchor: str = "end") -> "Axes":
        """A level line across the frame with its name on it."""
        left, _, width, _ = self.place
        _, at = self.at(self.x[0], y)
        self.parts += [path([(left, at), (left + width, at)], COLORS[n], 0.9, "3 2"),
                       text(left + width - 2 if anchor == "end" else left + 4, at - 4, words, anchor, COLORS[n], 9)]
        return self

    def write(self, x: float, y: float, words: str, n: int | None = None, anchor: str = "start", dx: float = 0,
              dy: float = 0, size: float = 9.5) -> "Axes":
        """Words at a value's place, moved by points."""
        px, py = self.at(x, y)
        self.parts.append(text(px + dx, py + dy, words, anchor, INK if n is None else COLORS[n], size))
        return self

    def key(self, names: Sequence[str], x: float, y: float, marks: str = "line", first: int = 0) -> "Axes":
        """Names of the lines (or bars) in their colors, from the page's point (x, y) down."""
        for i, name in enumerate(names):
            at, n = y + 13 * i, first + i
            mark = (path([(x, at - 3.5), (x + 22, at - 3.5)], COLORS[n], 1.6, DASHES[n]) if marks == "line" else
                    rect(x + 8, at - 8, 10, 9, COLORS[n]))
            self.parts += [mark, text(x + 27, at, name, size=9.5)]
        return self

    def __str__(self) -> str:
        return "\n".join(self.parts)
