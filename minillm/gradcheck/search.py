"""Every element of an input that is small, and sparse errors in one that is large.

An **element** costs two forwards (one by the complex step) where measurement and gradient agree to eight digits at once
(four in float32); only where they do not is its error bar found (measure.py), and only the bar decides.

Beyond ALL elements, SAMPLED random ones are checked and the whole gradient along random **directions**: GAUSSIANS with
normal weights and SUBSETS with weights of -1, 0, 0, 1. Let the error be e, k elements of it not zero, and b the bar.

    Gaussian    e . w is normal with deviation |e|, so it hides below b with probability below 0.8 b / |e|. Steps are
                chosen until b is a thousandth of a typical element: 0.0008 for one wrong element, less for more.
    subset      whatever the others add up to, one wrong element adds -e, 0, 0 or e, of which one value at most cancels,
                so a subset is blind with probability 1/2 at most, for any k.

Two Gaussians and four subsets miss a single wrong element, among 10**6 as among 1000, with probability below
0.0008^2 / 2^4 = 4e-8; they cost some 24 forwards, the elements 32. What a direction sees is then located: all elements
are measured where there are at most FULL, else the direction is bisected, two halves at a time, in 2 log2(n) steps.
"""
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from .measure import FLOAT32, FLOAT64, Line, Measured, Scalar, measure, norm, richardson
from .rows import Row, row_of

ALL, SAMPLED, GAUSSIANS, SUBSETS, FULL = 256, 16, 2, 4, 2048
COMPLEX_AGREEMENT = 1e-10
KINK = 0.1                      # of a slope: one-sided slopes that differ by more are looked at with care
UNSEEN = 1e-40                  # slopes that float64 loses beside 1, as log(1 + exp(-x)) at 100: no step shows them
MARGIN = 64                     # of the rounding of a gradient: a few tries show its size, not its largest values


@dataclass
class Settings:
    """What the caller asks for; None is the default."""

    eps: float | None = None
    atol: float | None = None
    rtol: float | None = None
    method: str | None = None
    samples: int | None = None

    def allowed(self, numeric: float) -> float:
        return UNSEEN + (self.atol or 0.0) + (self.rtol or 0.0) * abs(numeric)


@dataclass
class Finding:
    """One element or direction: its residual, and a verdict where the quick look or the error bar gave one."""

    line: Line
    index: int | None               # flat; None for a direction
    residual: float
    bar: float
    right: bool | None              # None: not decided yet
    kink: bool = False
    measured: Measured | None = None


@dataclass
class Search:
    """The check of one input."""

    scalar: Scalar
    name: str
    grad: np.ndarray                # flat, float64
    noise: Callable                 # () -> rounding of the gradient itself, flat: called where it matters only
    settings: Settings
    analytic_step: bool             # whether the complex step applies
    rng: np.random.Generator
    single: bool = False            # whether the gradient is float32
    explain: Callable | None = None # numeric gradient, where it differs, its terms, the elements -> a sentence
    beside: Callable | None = None  # size -> the same check at a point nearby, None where the pair does not take it
    note: str = ""
    found: dict[int, Finding] = field(default_factory=dict)
    directions: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = self.scalar.inputs[self.name]
        self.limits = FLOAT32 if self.x.dtype == np.float32 else FLOAT64
        self.step, _, self.agreement = self.limits
        self.agreement = FLOAT32[2] if self.single else self.agreement
        size = np.abs(self.x.astype(np.float64).ravel())
        size = size[np.isfinite(size)]
        self.rms = norm(size) / max(1, size.size) ** 0.5 or 1.0
        used = np.abs(self.grad[np.isfinite(self.grad) & (self.grad != 0)])
        self.small, self.median = np.quantile(used, (0.1, 0.5)) if used.size else (0.0, 0.0)

    def check(self) -> Row:
        n = self.grad.size
        count = self.settings.samples or (n if n <= ALL else SAMPLED)
        broken = np.flatnonzero(~np.isfinite(self.grad))
        chosen = broken[:1] if broken.size else np.arange(n) if count >= n else self.rng.choice(n, count, replace=False)
        for i in chosen:
            self.look(int(i))
        wrong = self.decide(list(self.found.values()))
        if wrong is None and not broken.size:
            wrong = self.along_directions(all_elements=count >= n)
        if wrong is not None and np.isfinite(wrong.residual):
            self.diagnose()
            wrong = self.decide(list(self.found.values())) or wrong         # perhaps another is worse
        return self.row(len(chosen), wrong)

    def diagnose(self) -> None:
        """The explanation of what is wrong, from all elements where that is affordable."""
        if self.explain is None:
            return
        for i in range(self.grad.size if self.grad.size <= FULL else 0):
            if i not in self.found:
                self.look(i)
        measured = np.array(sorted(self.found))
        found = [self.found[i] for i in measured]
        numeric = np.array([f.line.slope + f.residual for f in found])
        wrong = np.array([not f.right for f in found])
        if wrong.any():
            self.note = self.explain(numeric, wrong, self.terms, measured)

    def terms(self, i: int) -> np.ndarray:
        """The summands, one for each output, of the derivative by element i."""
        line, h = self.found[i].line, self.step * self.scale(i)
        return (line.at(h).slopes + line.at(-h).slopes) / 2

    def tensor(self, samples: int, directions: int) -> list[Row]:
        """Rows of a model's tensor: of elements, and of random directions alone."""
        count = self.grad.size
        for i in self.rng.choice(count, samples, replace=False) if samples < count else range(count):
            self.look(int(i))
        rows = [self.row(len(self.found), self.decide(list(self.found.values())))]
        self.found = {}
        for _ in range(directions):
            self.direction("normal")
        rows.append(self.row(directions, self.decide(self.directions)))
        rows[1].name, rows[1].directions = f"{self.name} (direction)", 0
        return rows

    # ---- one element ----------------------------------------------------------------------------------------------

    def look(self, i: int) -> Finding:
        """The quick look at one element, kept in `found`."""
        line = Line(self.scalar, self.name, np.array([i]), np.ones(1), self.grad[[i]])
        self.found[i] = self.quick(line, i, max(abs(line.slope), self.small / 100), self.scale(i))
        return self.found[i]

    def scale(self, i: int) -> float:
        size = abs(float(self.x.ravel()[i]))
        return max(size, self.rms) if np.isfinite(size) else self.rms

    def quick(self, line: Line, index: int | None, typical: float, scale: float) -> Finding:
        """Agreement of gradient and measurement to many digits, which no error bar could make more certain."""
        close, by_complex = self.agreement * typical, 0.0
        if not np.isfinite(line.slope):
            return Finding(line, index, np.nan, 0.0, False)
        if self.analytic_step:
            by_complex = residual = line.complex_residual()
            tight = close if self.single else COMPLEX_AGREEMENT * typical
            if abs(residual) <= self.tolerated(line, residual, tight):
                return Finding(line, index, residual, self.tolerated(line, residual, tight), True)
            if self.settings.method == "complex" and self.settings.atol is not None:
                close = 0.0                                  # the caller's tolerance may be tighter than differences
        h = self.settings.eps if self.settings.eps and self.limits is FLOAT64 else self.step * scale
        first = line.level(h)
        residual, bar = first.centre, self.tolerated(line, first.centre, close) + first.noise
        if not abs(residual) <= self.tolerated(line, residual, close):
            second = line.level(h / 4)
            residual = (16 * second.centre - first.centre) / 15
            if not np.isfinite(residual):
                residual = second.centre
        right = abs(residual) <= self.tolerated(line, residual, close)
        if index is not None and abs(first.plus - first.minus) > KINK * max(
                abs(first.plus + line.slope), abs(first.minus + line.slope), typical):
            return Finding(line, index, residual, bar, None)                    # perhaps a kink
        if right and abs(by_complex - residual) > 1e3 * bar:
            self.analytic_step = False
            self.note = "forward is not analytic (abs, .real or the like under the complex step): differences count"
        return Finding(line, index, residual, bar, True if right else None)

    def tolerated(self, line: Line, residual: float, close: float) -> float:
        return max(close, self.settings.allowed(line.slope + residual))

    # ---- the verdict ----------------------------------------------------------------------------------------------

    def decide(self, findings: list[Finding]) -> Finding | None:
        """The worst of those that are wrong beyond their error bar, or None; it takes few measurements, the worst
        first."""
        for finding in self.worst_first(f for f in findings if not f.right):
            if finding.right is False or not self.verdict(finding):
                return finding
        return None

    def verdict(self, finding: Finding) -> bool:
        line, index = finding.line, finding.index
        scale = self.rms if index is None else self.scale(index)
        if index is not None and not finding.kink and self.learnt(finding, scale):
            return True
        size = abs(float(self.x.ravel()[index])) if index is not None else 0.0
        m = measure(line, scale, self.limits, size or scale)
        margin = MARGIN if index is not None else MARGIN / 8            # in a sum of many, luck evens out
        bar = m.bar + margin * norm(self.noise()[line.places] * line.direction)
        allowed = self.settings.allowed(line.slope + m.residual)
        finding.measured, finding.residual, finding.bar = m, m.residual, bar + allowed
        finding.right = bool(m.outside - (bar - m.bar) <= allowed)
        finding.kink = finding.right and m.kink
        if finding.right and index is not None and not m.kink:
            self.step = m.h / scale
            self.agreement = min(1e-3, max(self.agreement, 2 * bar / max(abs(line.slope), self.small / 100, 1e-300)))
        if self.settings.method == "complex" and not finding.right:
            self.complex_verdict(finding)
        return finding.right

    def complex_verdict(self, finding: Finding) -> None:
        """The complex step was asked for: it is the number that is reported, where differences do not contradict it."""
        residual = finding.line.complex_residual()
        if abs(residual - finding.residual) <= finding.bar or not np.isfinite(finding.residual):
            finding.residual = residual

    def learnt(self, finding: Finding, scale: float) -> bool:
        """Another quick look, with the step that an earlier measurement found to be best."""
        again = self.quick(finding.line, finding.index, max(abs(finding.line.slope), self.small / 100), scale)
        if again.right:
            finding.residual, finding.bar, finding.right = again.residual, again.bar, True
        return bool(again.right)

    def worst_first(self, findings: Iterable[Finding]) -> list[Finding]:
        """In tolerances of the caller, or relative to the element, or to a thousandth of the largest."""
        largest = self.largest()

        def rank(finding: Finding) -> float:
            residual, numeric = abs(finding.residual), abs(finding.line.slope + finding.residual)
            if not np.isfinite(residual):
                return np.inf
            if self.settings.atol is None and self.settings.rtol is None:
                return residual / (numeric + 1e-3 * largest + 1e-300)
            return residual / (self.settings.allowed(numeric) + 1e-300)
        return sorted(findings, key=rank, reverse=True)

    def largest(self) -> float:
        sizes = [abs(f.line.slope + f.residual) for f in self.found.values()]
        return max((size for size in sizes if np.isfinite(size)), default=0.0)

    # ---- many elements at once ------------------------------------------------------------------------------------

    def along_directions(self, all_elements: bool) -> Finding | None:
        """Random directions: all of them where elements were sampled; one by differences where every element was
        measured by the complex step, which takes what is not analytic for a slope of zero."""
        if all_elements and not self.analytic_step:
            return None
        kinds = ["normal"] if all_elements else ["normal"] * GAUSSIANS + ["signs"] * SUBSETS
        for kind in kinds:
            finding = self.direction(kind)
            right = finding.right or self.verdict(finding)
            if not right and not np.isfinite(finding.residual) and np.isfinite(finding.line.slope):
                finding = self.direction(kind, relative=True)       # log and sqrt: no element may leave its sign
                right = finding.right or self.verdict(finding)
            if finding.measured and finding.measured.kink:
                return self.by_differences() if all_elements else self.beside_the_kinks()
            if not right:
                return self.locate(finding) or finding
        return None

    def by_differences(self) -> Finding | None:
        """All elements again, should the complex step have been blind."""
        self.analytic_step = False
        return self.decide([self.look(i) for i in range(self.grad.size)])

    def beside_the_kinks(self) -> Finding | None:
        """Many kinks on one line allow an interval in which errors hide: the directions of a point nearby, which no
        kink goes through, and the elements there."""
        if self.beside is None:
            return None
        nearby = self.beside(self.rms)
        return nearby and nearby.along_directions(all_elements=False)

    def direction(self, kind: str, relative: bool = False) -> Finding:
        n = self.grad.size
        weights = (self.rng.standard_normal(n) if kind == "normal" else
                   self.rng.choice(np.array([-1.0, 0.0, 0.0, 1.0]), n)) * 1.0
        if relative:
            weights = weights * np.minimum(1, np.abs(self.x.astype(np.float64).ravel()) / self.rms)
        line = Line(self.scalar, self.name, slice(0, n), weights, self.grad)
        analytic, self.analytic_step = self.analytic_step, self.analytic_step and bool(self.directions)
        typical = min(norm(line.grad * line.direction), (1e-2 if self.single else 1e-3) * self.median / self.agreement)
        self.directions.append(self.quick(line, None, typical, self.rms))
        self.analytic_step = analytic
        return self.directions[-1]

    def locate(self, finding: Finding) -> Finding | None:
        """The wrong element behind a wrong direction."""
        if self.grad.size <= FULL:
            return self.by_differences()
        line, whole = finding.line, finding.residual
        h = finding.measured.h if finding.measured and np.isfinite(finding.measured.h) else self.step * self.rms
        start, stop = 0, self.grad.size
        while stop - start > 1:
            half = (start + stop) // 2
            first = Line(self.scalar, self.name, slice(start, half), line.direction[start:half], self.grad[start:half])
            residual = richardson([first.level(4 * h), first.level(h)], 1)
            start, stop, whole = ((start, half, residual) if abs(residual) > abs(whole - residual) else
                                  (half, stop, whole - residual))
        return self.decide([self.look(start)])

    # ---- the report -----------------------------------------------------------------------------------------------

    def row(self, checked: int, wrong: Finding | None) -> Row:
        worst = wrong or self.worst_first(self.found.values() or self.directions)[0]
        index = () if worst.index is None else np.unravel_index(worst.index, self.x.shape)
        row = row_of(self.name, tuple(index), worst.line.slope, worst.residual, worst.bar, wrong is None)
        row.checked, row.directions = checked, len(self.directions)
        row.kinks = sum(f.kink for f in self.found.values())
        notes = [self.note] if self.note else []
        if row.kinks:
            notes.append(f"{row.kinks} at a kink: the gradient lies between the two one-sided slopes")
        if wrong is not None and not np.isfinite(worst.residual):
            notes.append("not finite: nothing to compare")
        row.note = "; ".join(notes)
        return row


def rounding(grad: np.ndarray, jittered: list[np.ndarray], shaken: list[np.ndarray], eps: float) -> np.ndarray:
    """The rounding of a gradient itself: how it scatters where last digits change, those of the inputs
    (all of them away from values that a gradient may treat in a special way, wrongly) and those of dout."""
    spread = eps * np.nan_to_num(np.abs(grad))
    with np.errstate(all="ignore"):
        if len(jittered) > 1:
            spread = np.maximum(spread, np.nan_to_num(np.ptp(jittered, axis=0)))
        for other in shaken:
            spread = np.maximum(spread, np.nan_to_num(np.abs(other - grad)))
    return np.maximum(spread, norm(spread) / spread.size ** 0.5)
