"""The score of gradient checkers: how many planted errors they find, and how often they complain about a right pair.

    python -m benchmarks gradcheck [--only minillm,torch,jax] [--quick]

Every planted error (planted.py) is given to every checker with its default settings, and so is the same pair without
the error. Found: it complains about the first. Told apart: and not about the second, without which a complaint says
nothing. Ours also gets RIGHT pairs without errors (right_pairs.py), of which the others, which are slower, get every
SHARE-th. One that ours gets wrong is listed under `wrong`, and the exit code is 1. Times are of the CPU.
"""
import time
from itertools import islice

from .gradient_checkers import complaint, installed
from .measure import report_row
from .planted import planted
from .right_pairs import right_runs

RIGHT, QUICK, SHARE = 10_000, 500, 20
OURS = "minillm"


def rows(options, peaks=None, progress=None):
    """Yields, checker after checker, rows for the report, {candidate: what is wrong}, {candidate: why skipped}."""
    cases, count = planted(), QUICK if options.quick else RIGHT
    checkers = {name: check for name, check in installed().items() if name in (options.only or name).split(",")}
    yield [], {}, {name: "not installed" for name in ("torch", "jax") if name not in installed()}
    for name, check in checkers.items():
        step = 1 if name == OURS else SHARE
        verdicts = [verdict(check, case) for case in watched(cases, len(cases), f"{name}, errors", progress)]
        pairs = watched(islice(right_runs(count), 0, None, step), count // step, f"{name}, right pairs", progress)
        runs = [(pair.op, *timed(check, pair)) for pair in pairs]
        alarms = [f"false alarm: right pair {number * step}, {op}: {said}"
                  for number, (op, said, _) in enumerate(runs) if said]
        right = report_row("gradcheck", "right pairs", "right", name, "float64", [seconds for *_, seconds in runs],
                           runs=len(runs), false_alarms=len(alarms))
        wrong = [*mistakes(cases, verdicts), *alarms] if name == OURS else []
        yield [*lines(name, cases, verdicts), right], {name: wrong} if wrong else {}, {}


def watched(items, total, words, progress):
    for number, item in enumerate(items):
        if progress:
            progress(number, total, words)
        yield item


def mistakes(cases, verdicts):
    """In words, which errors were not found and which right pairs were complained about."""
    for case, (said, alarm, _) in zip(cases, verdicts):
        where = f"{case.kind}, {case.label}, {case.op}, units {case.scale}"
        if not found(said):
            yield f"not found: {where}: {said or 'accepted'}"
        if alarm:
            yield f"false alarm: {where}: {alarm}"


def verdict(check, case):
    """(what a checker says about the error, about the pair without it, the seconds for both)."""
    said, seconds = timed(check, case.pair())
    alarm, more = (None, 0.0) if gave_up(said) else timed(check, case.right())
    return said, alarm, seconds + more


def timed(check, pair):
    start = time.process_time()
    return complaint(check, pair), time.process_time() - start


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
