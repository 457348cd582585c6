"""`python -m benchmarks.gpu --out DIR`: all that a GPU can tell about minillm's CUDA, in eight minutes.

Sections, by worth: see gpu_plan.py (`--only conformance,step` takes some). Everything is compared before it is timed,
with NumPy in float64 or, at large sizes, with the CPU's kernels; PyTorch, flash-attn and cuBLASLt stand beside it where
they are installed, and nothing but NumPy is needed. Each step of each variant is a process of its own with a limit, so
a kernel that hangs or crashes costs one item of one step, and DIR/gpu.json is written after each item: killed at any
time, it has what was found until then. At the end a table DIR/gpu.md and, with matplotlib, DIR/gpu.png;
DIR/gpu_instructions.npz holds what the GPU's instructions answered: put it into tests/fixtures, and every machine goes
on checking the emulator against it. A line for each fault; exit code 1 if there is any. `--emulator` goes through the
same steps on the emulator, small: it tests this program, not the GPU.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np

from minillm.kernels import load
from minillm.kernels import select as registry
from minillm.storage.atomic import atomic_write

from . import gpu_driver, gpu_plan, gpu_report, gpu_runner, gpu_train
from .gpu_plan import SECTIONS, is_a_peer

MINUTES = 8.0                               # for everything
CARRIED = 64 << 20                          # bytes of built modules that a bare machine can be sent


def minutes(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0: got {text}")
    return value


def sections(text):
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"no section {name!r}: there is {', '.join(SECTIONS)}")
    return names


def parser():
    about = "\n".join(f"  {name:<12}{gpu_plan.ABOUT[name]}" for name in SECTIONS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0],
                                     epilog=f"sections:\n{about}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--minutes", type=minutes, default=MINUTES, help="for everything (default: %(default)s)")
    parser.add_argument("--only", type=sections, default=[], metavar="SECTION,...", help="some sections, see below")
    parser.add_argument("--emulator", "--emulate", dest="emulate", action="store_true",
                        help="small, on the emulator: a test of this program")
    return parser


# ---- the document ----

def empty(emulate):
    return {"emulated": emulate, "device": {}, "conformance": {}, "ops": [], "step": [], "bandwidth": [], "matmul": [],
            "attention": [], "correctness": [], "beside": {}, "sanitizer": {}, "not_built": {}, "left_out": {},
            "seconds": {}, "without_kernels": gpu_plan.without_kernels(emulate), "faults": []}


def add(document, fixture, step, item, answer):
    """What a step has answered, into the document; a line where something is wrong."""
    section, who = step.name.split(" ", 1)
    if isinstance(answer, dict) and "not_built" in answer:
        document["not_built"][f"{section} {who}"] = answer["not_built"]
        return
    wrong = RECORD[section](document, fixture, who, item, answer)
    if wrong:
        report(document, step, item, wrong)


def record_device(document, fixture, who, item, answer):
    document["device"] |= answer


def record_conformance(document, fixture, who, item, answer):
    document["conformance"][item] = answer["agree"]
    fixture |= {key: np.array(values, "uint32") for key, values in answer["fixture"].items()}
    return None if len(set(answer["agree"].split("/"))) == 1 else f"{answer['agree']} agree with the emulator"


def record_ops(document, fixture, who, item, answer):
    document["ops"].append(answer)
    return "; ".join(answer["wrong"][:3])


def record_step(document, fixture, who, item, answer):
    document["step"].append(answer)
    return answer["wrong"] or gpu_train.other_loss(document["step"])


def record_rows(document, fixture, who, item, answer, section):
    document[section] += [{"name": who} | row for row in answer["rows"]]
    return answer["wrong"] and f"wrong, so not timed: {answer['wrong']}"


def record_bandwidth(document, fixture, who, item, answer):
    answer["rows"] = [{"op": answer["op"], "choice": answer["choice"]} | row for row in answer["rows"]]
    return record_rows(document, fixture, who, item, answer, "bandwidth")


def record_matmul(*rest):
    return record_rows(*rest, "matmul")


def record_attention(*rest):
    return record_rows(*rest, "attention")


def record_correctness(document, fixture, who, item, answer):
    document["correctness"].append(answer)
    return None if answer["right"] else f"wrong: {answer}"


def record_beside(document, fixture, who, item, answer):
    document["beside"][who] = answer


def record_sanitizer(document, fixture, who, item, answer):
    document["sanitizer"][f"{item} {who}"] = answer
    return None if answer in ("clean", "not installed") else answer[-300:].replace("\n", " ")


RECORD = {section: globals()[f"record_{section}"] for section in SECTIONS}


def report(document, step, item, problem):
    """A fault of ours; what there was no time for, or another library cannot do, is left out."""
    label = f"{step.name} {item if item is not None else ''}".strip()
    if problem == "no time" or is_a_peer(step):
        document["left_out"][label] = problem
    else:
        document["faults"].append(f"{label}: {problem}")
    print(f"{label}: {problem}", flush=True)


def save(document, folder):
    with atomic_write(folder / "gpu.json") as file:
        json.dump(document, file, indent=1)


# ---- the run ----

def run_all_steps(steps, folder, emulate, minutes, clock=time.monotonic):
    """All steps; returns the document, saved after each item."""
    begin, document, fixture = clock(), empty(emulate), {}
    if not emulate:
        document["device"]["modules_mib"] = carried()
    save(document, folder)
    for step in steps:
        def answered(item, answer, problem, step=step):
            if problem:
                report(document, step, item, problem)
            else:
                add(document, fixture, step, item, answer)
            save(document, folder)
        until, start = begin + 60 * minutes * step.share, clock()
        gpu_runner.run(step, answered, lambda until=until: until - clock())
        document["seconds"][step.name] = round(clock() - start, 1)
        print(f"{clock() - begin:.0f} s: {step.name} is over", flush=True)
        if fixture:
            with atomic_write(folder / "gpu_instructions.npz", "wb") as file:
                np.savez_compressed(file, **fixture)
    if not emulate:
        document["device"]["clocks_at_the_end"] = gpu_driver.clocks()
    save(document, folder)
    with atomic_write(folder / "gpu.md") as file:
        file.write(gpu_report.page(document))
    gpu_report.plot(document, folder / "gpu.png")
    return document


def carried():
    """MiB of the modules that a machine without a compiler needs, the GPU's and the emulator's; a line if too many."""
    sizes = {name: Path(module.__file__).stat().st_size for name in ("cuda", "cudasim")
             if (module := registry.cuda(name))}
    if sum(sizes.values()) > CARRIED:
        print(f"warning: {' and '.join(sizes)} have {sum(sizes.values()) >> 20} MiB, and a machine can be sent "
              f"{CARRIED >> 20}: build fewer MINILLM_CUDA_ARCHS", file=sys.stderr)
    return {name: round(size / 2 ** 20, 1) for name, size in sizes.items()}


def problem(emulate):
    """Why nothing can run here, in a line; empty if it can."""
    name = gpu_plan.backend(emulate)
    module = registry.cuda(name)
    if module is None:
        return f"the {name} kernels are not built: {load.how(name)}"
    return module.driver_problem() and f"the CUDA kernels cannot run here: {module.driver_problem()}"


def main(argv=None):
    """Returns the exit code: 0 right, 1 something is wrong, 2 cannot run."""
    options = parser().parse_args(argv)
    if why := problem(options.emulate):
        print(f"error: {why}", file=sys.stderr)
        return 2
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save({}, folder)
    except OSError as error:
        print(f"error: --out {folder} cannot be written to: {error.strerror}", file=sys.stderr)
        return 2
    module = registry.cuda(gpu_plan.backend(options.emulate))
    steps = gpu_plan.plan(module, options.emulate, options.only)
    document = run_all_steps(steps, folder, options.emulate, options.minutes)
    print(gpu_report.summary(document))
    print(f"{len(document['faults'])} faults, {len(document['left_out'])} left out, {len(document['not_built'])} not "
          f"built; results in {folder}")
    print("\n".join(document["faults"]) or "all right" + ", of what was not left out" * bool(document["left_out"]))
    return 1 if document["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
