"""The score of gradient checkers: how many planted errors they find, and how often they complain about a right pair.

    python -m benchmarks gradcheck [--only minillm,torch,jax] [--quick]

Every planted error (planted.py) is given to every checker with its default settings, and so is the same pair without
the error. Found: it complains about the first. Told apart: and not about the second, without which a complaint says
nothing. Ours also gets RIGHT pairs without errors (right_pairs.py), of which the others, which are slower, get every
tenth. One that ours gets wrong is listed under `wrong`, and the exit code is 1.
"""
import time
from itertools import islice

from .gradient_checkers import complaint, installed
from .measure import report_row
from .planted import planted
from .right_pairs import right_runs

RIGHT, QUICK = 10_000, 500
OURS = "minillm"


def rows(options, peaks=None, progress=None):
    """Rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    checkers = {name: check for name, check in installed().items()
                if name in (options.only or name).split(",")}
    cases, count = planted(), QUICK if options.quick else RIGHT
    total, done, found, wrong = (len(cases) + count) * len(checkers), 0, [], {}
    for name, check in checkers.items():
        verdicts = []
        for case in cases:
            verdicts.append(verdict(check, case))
            done += 1
            progress and progress(done, total, name)
        alarms, seconds = [], []
        for number, pair in enumerate(islice(right_runs(count), 0, None, 1 if name == OURS else 10)):
            said, spent = timed(check, pair)
            alarms += [f"right pair {number}, {pair.op}: {said}"] if said else []
            seconds.append(spent)
            done += 1 if name == OURS else 10
            progress and progress(done, total, name)
        found += lines(name, cases, verdicts)
        found.append(report_row("gradcheck", "right pairs", "right", name, "float64", seconds, runs=len(seconds),
                                false_alarms=len(alarms)))
        missed = [f"not found: {case.kind}, {case.label}, {case.op}, units {case.scale}"
                  for case, (said, _, _) in zip(cases, verdicts) if not found(said)]
        alarms = [f"false alarm: {case.kind}, {case.label}, {case.op}, units {case.scale}: {said}"
                  for case, (_, said, _) in zip(cases, verdicts) if said] + alarms
        if name == OURS and (missed or alarms):
            wrong[name] = missed + alarms
    return found, wrong, {name: "not installed" for name in ("torch", "jax") if name not in installed()}


def verdict(check, case):
    """(what a checker says about the error, about the pair without it, the seconds for both)."""
    said, seconds = timed(check, case.pair())
    alarm, more = (None, 0.0) if gave_up(said) else timed(check, case.right())
    return said, alarm, seconds + more


def timed(check, pair):
    start = time.perf_counter()
    return complaint(check, pair), time.perf_counter() - start


def lines(name, cases, verdicts):
    """A row for each kind of error."""
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [(case, verdict) for case, verdict in zip(cases, verdicts) if case.kind == kind]
        hits = [found(said) for _, (said, _, _) in mine]
        apart = [found(said) and not alarm for _, (said, alarm, _) in mine]
        plain = [case.scale == (1, 1) for case, _ in mine]
        yield report_row("gradcheck", kind, "planted", name, "float64", [spent for _, (_, _, spent) in mine],
                         planted=len(mine), found=sum(hits), told_apart=sum(apart), false_alarms=sum(
                             bool(alarm) for _, (_, alarm, _) in mine),
                         plain=sum(plain), plain_told_apart=sum(a and p for a, p in zip(apart, plain)))


def found(said):
    return bool(said) and not gave_up(said)


def gave_up(said):
    return bool(said) and said.startswith("gave up")
