"""python -m tests.fuzz [--only NAME] [--seconds N | --hours N] [--seed N] [--case N]: the fuzzer; see targets.py.

Every case is drawn from (seed, target, number), so a fault can be seen again with --only, --seed and --case. Each
target runs in a process of its own, which a crash may end: the next one goes on behind the case.
"""
import argparse
import faulthandler
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / folder) for folder in (".", "tests", "tests/cpu")]          # as in pyproject.toml, for pytest
sys.path[:0] = PATHS

from .targets import TARGETS, Missing  # noqa: E402

SECONDS, SIZES, ALLOWANCE = 1.0, 4, 96 << 20        # of CPU time; of memory, times the input, and so many bytes more
HANGS = 60                                          # seconds for one case, after which Python says where it stands
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")      # then time and memory say nothing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--only", choices=TARGETS, action="append")
    parser.add_argument("--seconds", type=float, default=60.0, help="of all targets together")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10 ** 6))
    parser.add_argument("--case", type=int, help="this one alone, here, with its traceback")
    options = parser.parse_args()
    if options.case is not None:
        return run_here(options.only[0], options.seed, options.case, 1, 1e9)
    names = options.only or list(TARGETS)
    seconds = (options.hours * 3600 if options.hours else options.seconds) / len(names)
    return max([run(name, options.seed, seconds) for name in names])


def run(name: str, seed: int, seconds: float) -> int:
    """In child processes, until the time is over; 1 if there was a fault."""
    end, first, failed = time.monotonic() + seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "case")
        while (left := end - time.monotonic()) > 0:
            journal.write_text(f"{first}")
            call = f"from tests.fuzz.__main__ import run_here; raise SystemExit(run_here({name!r}, {seed}, {first}, " \
                   f"10 ** 9, {left}, {str(journal)!r}))"
            child = subprocess.run([sys.executable, "-X", "faulthandler", "-c", call], check=False,
                                   timeout=left + 10 * HANGS, env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)})
            if child.returncode in (0, 1):
                return failed or child.returncode
            case, failed = int(journal.read_text()), 1
            print(f"fuzz: {name}: the process ended with {child.returncode}: {again(name, seed, case)}", flush=True)
            first = case + 1
    return failed


def again(name, seed, case):
    return f"python -m tests.fuzz --only {name} --seed {seed} --case {case}"


def run_here(name: str, seed: int, first: int, count: int, seconds: float, journal: str | None = None) -> int:
    """Cases first, first + 1, ... until the time is over; 1 if there was a fault."""
    end, faults, done = time.monotonic() + seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder, open(journal or os.devnull, "r+b", 0) as at:
        try:
            target, errors = TARGETS[name](Path(folder)), TARGETS[name].errors
        except Missing as missing:
            print(f"fuzz: {name}: left out, {missing}")
            return 0
        for case in itertools.islice(itertools.count(first), count):
            os.pwrite(at.fileno(), str(case).encode(), 0)
            faulthandler.dump_traceback_later(HANGS, exit=True)
            fault = one(target, errors, random.Random(f"{seed} {name} {case}"))
            faulthandler.cancel_dump_traceback_later()
            done += 1
            if fault:
                faults += 1
                print(f"fuzz: {name}: {fault}\n    {again(name, seed, case)}", flush=True)
            if time.monotonic() > end or faults > 20:
                break
        getattr(target, "close", lambda: None)()
    print(f"fuzz: {name}: {done} cases, {faults} faults (seed {seed})", flush=True)
    return int(faults > 0)


def one(target, errors, rng) -> str | None:
    """Draw a case and run it. What is wrong, if anything is."""
    size, call = target(rng)
    for _ in range(2):                              # taken again if it costs much: the first may have imported things
        before, start = peak(reset=True), time.process_time()
        try:
            call()
        except errors as error:
            if not str(error).strip():
                return "an error without words:\n" + traceback.format_exc()
        except BaseException:                       # SystemExit, KeyboardInterrupt are none of the documented either
            return traceback.format_exc()
        seconds, memory = time.process_time() - start, peak() - before
        if SANITIZED or seconds <= SECONDS and memory <= SIZES * size + ALLOWANCE:
            return None
    return f"{seconds:.1f} s of CPU time, {memory / 1e6:.0f} MB for an input of {size} bytes"


def peak(reset: bool = False) -> int:
    """Bytes of memory this process has had at most, since the last reset; now, if it is reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:" if reset else "VmHWM:")[2].split()[0]) << 10
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
