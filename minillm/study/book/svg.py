"""Pictures as SVG text, drawn without a plotting library: axes (linear or logarithmic), curves, bars, a heat map.

    axes = Axes(x=(1, 1000), y=(0, 5), log="x", xlabel="step", ylabel="loss")
    svg = picture("A sentence for those who cannot see it.", axes.frame() + axes.curve(points, BLUE) + axes.label(...))

Sizes are points; colours that are currentColor follow the page's text. Coordinates have two decimals, so that the text
is the same each time.
"""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

BLUE, RED, GREEN, AMBER, VIOLET, GREY = "#1f6feb", "#d1495b", "#2a9d8f", "#e9a23b", "#7b5ea7", "#8b949e"
COLOURS = (BLUE, RED, GREEN, AMBER, VIOLET, GREY)
FONT = "Libertinus Serif, Georgia, serif"
Point = tuple[float, float]


def picture(title: str, body: str, width: float = 410, height: float = 230) -> str:
    """A whole SVG."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {n(width)} {n(height)}" width="{n(width)}" '
            f'height="{n(height)}" role="img"><title>{escape(title)}</title>{body}</svg>')


def n(value: float) -> str:
    """A coordinate."""
    return f"{round(float(value), 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, words: str, anchor: str = "start", size: float = 9.5, colour: str = "currentColor",
         turned: bool = False, bold: bool = False, font: str = FONT) -> str:
    """Words at a place. anchor: start, middle or end; turned: they run upward."""
    turn = f' transform="rotate(-90 {n(x)} {n(y)})"' if turned else ""
    weight = ";font-weight:bold" if bold else ""
    return (f'<text x="{n(x)}" y="{n(y)}"{turn} style="font-family:{font};font-size:{n(size)}px;'
            f'text-anchor:{anchor};fill:{colour}{weight}">{escape(words)}</text>')


def line(a: Point, b: Point, colour: str = "currentColor", width: float = 1, dash: str = "", opacity: float = 1) -> str:
    """A straight line. dash: such as "3 2"."""
    return (f'<path d="M{n(a[0])} {n(a[1])}L{n(b[0])} {n(b[1])}" {stroke(colour, width, dash)}'
            + (f' stroke-opacity="{n(opacity)}"' if opacity < 1 else "") + "/>")


def path(points: Iterable[Point], colour: str = "currentColor", width: float = 1.4, dash: str = "") -> str:
    """A broken line through points."""
    return f'<path d="M{"L".join(f"{n(x)} {n(y)}" for x, y in points)}" {stroke(colour, width, dash)}/>'


def area(points: Iterable[Point], colour: str, opacity: float = 0.2) -> str:
    """A filled shape."""
    return f'<path d="M{"L".join(f"{n(x)} {n(y)}" for x, y in points)}Z" fill="{colour}" fill-opacity="{n(opacity)}"/>'


def rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1, border: str = "none",
         radius: float = 0) -> str:
    """A filled rectangle."""
    return (f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" fill="{colour}" '
            f'fill-opacity="{n(opacity)}" stroke="{border}"' + (f' rx="{n(radius)}"' if radius else "") + "/>")


def dot(at: Point, colour: str = "currentColor", radius: float = 2) -> str:
    return f'<circle cx="{n(at[0])}" cy="{n(at[1])}" r="{n(radius)}" fill="{colour}"/>'


def arrow(a: Point, b: Point, colour: str = "currentColor", width: float = 1) -> str:
    """A line with a head at b."""
    angle = math.atan2(b[1] - a[1], b[0] - a[0])
    wings = [(b[0] - 5 * math.cos(angle + turn), b[1] - 5 * math.sin(angle + turn)) for turn in (0.45, -0.45)]
    return line(a, b, colour, width) + area([b, *wings], colour, 1)


def stroke(colour: str, width: float, dash: str) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{colour}" stroke-width="{n(width)}" stroke-linejoin="round"{dashes}'


@dataclass
class Axes:
    """Coordinates within a picture. x, y: lowest and highest value; log: "", "x", "y" or "xy"; the box: left, top, width
    and height of the frame in points."""

    x: Point
    y: Point
    log: str = ""
    xlabel: str = ""
    ylabel: str = ""
    box: tuple[float, float, float, float] = (48, 12, 350, 178)
    xticks: Sequence[float] = field(default_factory=list)               # default: some round numbers
    yticks: Sequence[float] = field(default_factory=list)

    def at(self, x: float, y: float) -> Point:
        """Where a point of the data lies."""
        left, top, width, height = self.box
        return (left + width * share(x, self.x, "x" in self.log), top + height * (1 - share(y, self.y, "y" in self.log)))

    def frame(self, grid: bool = True) -> str:
        """Axes with ticks, a grid and labels."""
        left, top, width, height = self.box
        parts = []
        for tick in self.xticks or ticks(self.x, "x" in self.log):
            px, _ = self.at(tick, self.y[0])
            parts.append(line((px, top), (px, top + height), width=0.5, opacity=0.15 if grid else 0))
            parts.append(line((px, top + height), (px, top + height + 3), width=0.7))
            parts.append(text(px, top + height + 13, number(tick, "x" in self.log), "middle", 9))
        for tick in self.yticks or ticks(self.y, "y" in self.log):
            _, py = self.at(self.x[0], tick)
            parts.append(line((left, py), (left + width, py), width=0.5, opacity=0.15 if grid else 0))
            parts.append(line((left - 3, py), (left, py), width=0.7))
            parts.append(text(left - 6, py + 3, number(tick, "y" in self.log), "end", 9))
        parts.append(path([(left, top), (left, top + height), (left + width, top + height)], width=0.8))
        parts.append(text(left + width / 2, top + height + 28, self.xlabel, "middle"))
        parts.append(text(11, top + height / 2, self.ylabel, "middle", turned=True))
        return "".join(parts)

    def curve(self, points: Iterable[Point], colour: str = BLUE, width: float = 1.4, dash: str = "") -> str:
        """A curve through points of the data; what is not finite, or has no logarithm, is left out."""
        seen = [self.at(x, y) for x, y in points if self.shown(x, y)]
        return path(seen, colour, width, dash) if seen else ""

    def dots(self, points: Iterable[Point], colour: str = BLUE, radius: float = 1.6) -> str:
        return "".join(dot(self.at(x, y), colour, radius) for x, y in points if self.shown(x, y))

    def shown(self, x: float, y: float) -> bool:
        return (math.isfinite(x) and math.isfinite(y) and (x > 0 or "x" not in self.log) and (y > 0 or "y" not in self.log))

    def words(self, x: float, y: float, what: str, dx: float = 0, dy: float = 0, anchor: str = "start",
              colour: str = "currentColor") -> str:
        """Words beside a point of the data."""
        px, py = self.at(x, y)
        return text(px + dx, py + dy, what, anchor, colour=colour)


def share(value: float, ends: Point, log: bool) -> float:
    """How far a value is between the ends, kept between 0 and 1."""
    low, high, value = (math.log(v) for v in (*ends, value)) if log else (*ends, value)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def ticks(ends: Point, log: bool) -> list[float]:
    """Some round numbers between the ends: powers of ten, or steps of 1, 2 or 5."""
    low, high = ends
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / 7))
        return [10.0 ** power for power in range(first, last + 1, every)]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(step * i, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, log: bool = False) -> str:
    """A tick's number: 10⁻³ on a logarithmic axis, 0.25 or 1,000 on others."""
    if log and value > 0 and not 0.01 <= value <= 1000 and abs(math.log10(value) - round(math.log10(value))) < 1e-9:
        return "10" + str(round(math.log10(value))).translate(SUPERSCRIPT)
    return f"{value:,.10g}".replace("-", "−")


def legend(x: float, y: float, entries: Sequence[tuple[str, str]], step: float = 13, dash: Sequence[str] = (),
           across: bool = False) -> str:
    """(words, colour) below each other, or beside each other, each with a piece of its line."""
    parts = []
    for i, (words, colour) in enumerate(entries):
        parts.append(line((x, y - 3), (x + 16, y - 3), colour, 1.6, dash[i] if i < len(dash) else "")
                     + text(x + 21, y, words))
        x, y = (x + 36 + 4.6 * len(words), y) if across else (x, y + step)
    return "".join(parts)


def heat(x: float, y: float, cell: float, values: Sequence[Sequence[float]], colour: str = BLUE) -> str:
    """A matrix as squares, the darker the closer to 1."""
    return "".join(rect(x + j * cell, y + i * cell, cell, cell, colour, max(0.0, min(1.0, float(value))), "none")
                   for i, row in enumerate(values) for j, value in enumerate(row) if value > 0.004)
