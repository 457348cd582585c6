"""Errors planted in the ops and their kernels, one at a time: do the tests see them?

    nice python tests/mutate.py [--count 200] [--seed 0] [--only ops|csrc|TEXT] [--planted] [--jobs 1] [--json]

A mutant is a file of minillm/ops (Python) or csrc/cpu (C++) with one change: another operator, a bound or a constant
off by one, a statement left out, two arguments swapped. It is made in a copy of the tree, where its one unit is
compiled (-O1, AVX2) and linked first. Then come the numeric tests of its op, called straight away, all tests of the op,
by pytest, and those that EXTRA names. What fails, crashes or never ends is caught. Mutants that do not compile, or give
the same object code, do not count. Some are right all the same, or only slower: tests/mutants.md explains those.
"""
import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from inspect import signature
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ISA = "avx2"
SECONDS = 180                           # of CPU time for some tests of a mutant, and twenty times that in all
UNITS = {                               # header: the unit that is compiled for it
    "attention/3_simd.h": "attention/3_simd.cpp", "attention/pair.h": "attention/2_blocked.cpp",
    "attention/heads.h": "attention/3_simd.cpp", "cpu/layernorm.h": "layernorm.cpp", "cpu/mlp.h": "mlp.cpp",
    "gemm/matmul_bf16.h": "gemm/matmul_bf16.cpp", "gemm/bf16.h": "gemm/matmul_bf16.cpp",
    "gemm/amx.h": "gemm/matmul_bf16.cpp", "gemm/": "gemm/matmul.cpp", "linear/layer.h": "linear.cpp",
    "linear/ladder.h": "linear/2_blocked.cpp", "linear/column_sums.h": "linear.cpp",
    "linear/bf16_weight.h": "linear/bf16.cpp", "isa/amx.h": "linear/4_amx.cpp", "isa/": "layernorm.cpp",
    "simd/elementwise.h": "gelu.cpp", "simd/math.h": "gelu.cpp", "simd/softmax.h": "linear_cross_entropy.cpp",
    "simd/bfloat16.h": "adamw.cpp", "simd/vec.h": "layernorm.cpp", "memory/": "../python/bindings.cpp"}
OPS = {                                 # file: the ops that it belongs to, where that is not its name
    "gemm/": "linear head", "linear/": "linear", "simd/math": "gelu", "simd/softmax": "linear_cross_entropy",
    "simd/bfloat16": "adamw", "simd/elementwise": "gelu", "simd/vec": "layernorm", "isa/amx": "linear",
    "isa/": "layernorm", "attention/decode": "attention_decode", "attention/": "attention attention_decode",
    "cpu/decode": "attention_decode", "memory/": "gelu", "mlp_bf16": "mlp", "cpu/mlp.h": "mlp",
    "linear_cross_entropy_bf16": "linear_cross_entropy", "ops/checks": "linear cross_entropy adamw mlp",
    "ops/bfloat16": "adamw"}
TABLE = ("spec.py", "table.py")         # what tests and benchmarks are made from, not what is tested
NUMERIC = ("test_gradients", "test_contract", "test_into", "test_borders", "test_bad_inputs")
NAMED = ("tests/ops", "tests/cpu/test_kernels.py", "tests/kernels/test_determinism.py",
         "tests/kernels/test_shared_state.py")                  # of which those run that name the op
EXTRA = {                               # file: further tests
    "gemm/": ["tests/cpu/test_gemm.py", "tests/cpu/test_bf16.py"],
    "bf16": ["tests/cpu/test_bf16.py", "tests/train/test_weight_copy.py"],
    "decode": ["tests/generation/test_decode.py", "tests/models/test_quantized.py", "tests/models/test_kv_cache.py"],
    "memory/": ["tests/kernels/test_arrays.py"], "simd/": ["tests/cpu/test_kernels.py", "tests/cpu/test_gemm.py"],
    "linear": ["tests/cpu/test_gemm.py"], "mlp": ["tests/cpu/test_gemm.py"], "head": ["tests/cpu/test_gemm.py"],
    "sum_squares": ["tests/cpu/test_sum_squares.py"]}
SLOW = "not cudasim and not test_training_ends and not toy_op"
PLANTED = (                             # errors that once survived: file, text, replacement
    ("csrc/cpu/sum_squares.cpp", "std::min(PIECE, n - p * PIECE)",
     "p ? (n - p * PIECE) / 16 * 16 : std::min(PIECE, n)"),
    ("csrc/cpu/layernorm.cpp", "n = rows.begin; n <", "n = rows.begin + (N > 1000 && chunk == CHUNKS - 1); n <"),
    ("csrc/cpu/cross_entropy.cpp", "top[n] = row_max(z, V);", "static T shared; top[n] = shared = row_max(z, V);"),
    ("csrc/cpu/mlp.cpp", "row < N || row == 0", "row < N"),
    ("csrc/cpu/head.cpp", "matmul<T>(N, V, C,", "if (V == 0) fail(\"no vocabulary\"); matmul<T>(N, V, C,"),
    ("csrc/cpu/layernorm.cpp", "if (!(eps > 0 && eps < INFINITY)) fail(", "if (eps < -9) fail("),
    ("minillm/ops/layernorm.py", "return 0 < eps < math.inf", "return eps >= -9"),
)
SWAPS = {
    " + ": [" - "], " - ": [" + "], " * ": [" / "], " / ": [" * "], " += ": [" -= ", " = "], " -= ": [" += "],
    " *= ": [" /= "], " < ": [" <= "], " <= ": [" < "], " > ": [" >= "], " >= ": [" > "], " == ": [" != "],
    " != ": [" == "], " && ": [" || "], " || ": [" && "], " and ": [" or "], " or ": [" and "], "min(": ["max("],
    "max(": ["min("], "true": ["false"], "false": ["true"], "True": ["False"], "False": ["True"], ".begin": [".end"],
    ".end": [".begin"], "not ": [""], "zeros": ["ones"], "axis=0": ["axis=-1"], "axis=-1": ["axis=0"],
    "#pragma omp barrier": [""]}
WORDS = re.compile("|".join(rf"\b{re.escape(word)}" if word[0].isalpha() else re.escape(word)
                            for word in sorted(SWAPS, key=len, reverse=True)))
NUMBER = re.compile(r"(?<![\w.\"])\d+(?![\w.])")
NEGATED = re.compile(r"(?<=[=(,?:] )-(?=\w)|(?<=\()-(?=\w)")
ARGUMENTS = re.compile(r"(?<=\()(\w+), (\w+)(?=[,)])|(?<=, )(\w+), (\w+)(?=[,)])")
STATEMENT = {
    ".py": re.compile(r"(?<= )(?! |return)[\w\[\].: ]+ [+*/-]?= .*|(?<= )check_.*\)$|(?<= )raise .*"),
    ".cpp": re.compile(r"(?<= )[\w\[\].>() -]+(?<!const)(?<!auto) [+*/-]?= [^{]*;$|(?<= )[\w:.<>]+\([^{]*\);$")}
LEFT_OUT = re.compile(r"\s*(#(?!pragma omp barrier)|template|using|typedef|static_assert|struct|class|import|from "
                      r"|extern|namespace)|.*(prefetch|constexpr|Register)|\s*(def|fail)\b")


class Mutant(NamedTuple):
    file: str
    line: int
    old: str                            # the line, before and after
    new: str
    text: str                           # of the file

    def __str__(self):
        return f"{self.file}: `{self.old}` → `{self.new}`"


# ---- making them ----

def visible(text, suffix):
    """The text with comments, strings and (of an op's file) the SPEC blanked, every place kept."""
    def blank(found):
        return re.sub(r"[^\n]", "\0", found[0])
    text = re.sub(r'"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*"' + ("|#.*" if suffix == ".py" else "|//.*"), blank, text)
    if suffix != ".py":
        return text
    return re.sub(r"^(SPEC = |def sample|def torch_)[\s\S]*?(?=^def |\Z)", blank, text, flags=re.M)


def changes(line, suffix):
    """Every (begin, end, replacement) of a line of code."""
    for found in WORDS.finditer(line):
        yield from ((*found.span(), new) for new in SWAPS[found[0]])
    for found in NUMBER.finditer(line):
        yield from ((*found.span(), str(n)) for n in (int(found[0]) + 1, int(found[0]) - 1) if n >= 0)
    yield from ((*found.span(), "") for found in NEGATED.finditer(line))
    for found in ARGUMENTS.finditer(line):
        one, other = (name for name in found.groups() if name)
        if one != other:
            yield (*found.span(), f"{other}, {one}")
    for found in STATEMENT.get(suffix, STATEMENT[".cpp"]).finditer(line):
        yield (*found.span(), "pass" if suffix == ".py" else ";")


def mutants_of(path):
    file, text = str(path.relative_to(ROOT)), path.read_text()
    lines = text.split("\n")
    for number, (line, code) in enumerate(zip(lines, visible(text, path.suffix).split("\n"))):
        for begin, end, new in [] if LEFT_OUT.match(code) else changes(code, path.suffix):
            changed = line[:begin] + new + line[end:]
            yield Mutant(file, number + 1, line.strip(), changed.strip(),
                         "\n".join([*lines[:number], changed, *lines[number + 1:]]))


def planted():
    for file, old, new in PLANTED:
        text = (ROOT / file).read_text()
        assert old in text, f"{file} has no {old!r} any more"
        yield Mutant(file, text[:text.index(old)].count("\n") + 1, old, new, text.replace(old, new, 1))


def drawn(only, seed):
    """All mutants in random order, those of ops and of csrc in turns."""
    files = {"ops": sorted(path for path in (ROOT / "minillm/ops").rglob("*.py") if path.name not in TABLE),
             "csrc": sorted(path for end in ("*.cpp", "*.h") for path in (ROOT / "csrc/cpu").rglob(end))}
    kinds = [[mutant for path in paths for mutant in mutants_of(path) if only in (None, kind) or only in str(mutant)]
             for kind, paths in files.items()]
    for kind in kinds:
        random.Random(seed).shuffle(kind)
    while any(kinds):
        yield from (kind.pop() for kind in kinds if kind)


# ---- building them ----

class Build(NamedTuple):
    commands: dict                      # unit: its object, and the command that compiles it
    link: list
    extension: Path


def prepare(folder):
    """A copy of the tree with the kernels of one instruction set in it."""
    for name in ("minillm", "csrc", "tests", "benchmarks", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    os.environ |= {"MINILLM_BUILD": ISA, "MINILLM_CUDA": "0", "CXXFLAGS": "-O1", "MINILLM_CPU": ISA,
                   "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}
    os.chdir(folder)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], stdout=subprocess.DEVNULL, check=True)
    setup = runpy.run_path("setup.py", run_name="setup")
    commands = {command[command.index("-c") + 1]: (made, command) for made, command in setup["compilations"](ISA)}
    return Build(commands, setup["linking"](ISA)[1], *Path("minillm/_cpp").glob(f"{ISA}.*.so"))


def move_to_a_copy(folder):
    """Each process that makes mutants has a tree of its own."""
    copy = folder.parent / str(os.getpid())
    shutil.copytree(folder, copy)
    os.chdir(copy)


def verdict(mutant, build, explained):
    """What came of the mutant: the test that caught it, "survived", "explained", or "no mutant" (does not compile, or
    gives the same code)."""
    found = tried(mutant, build)
    found = "explained" if found == "survived" and str(mutant) in explained else found
    print(f"{mutant.file}:{mutant.line} `{mutant.old}` → `{mutant.new}`\n    {found}", file=sys.stderr, flush=True)
    return found


def tried(mutant, build):
    path = Path(mutant.file)
    right = path.read_text()
    path.write_text(mutant.text)
    try:
        if path.suffix != ".py":
            return compiled_and_tested(mutant.file, *build)
        compile(mutant.text, mutant.file, "exec")
        return tested(mutant.file)
    except SyntaxError:
        return "no mutant"
    finally:
        path.write_text(right)


def compiled_and_tested(file, commands, link, extension):
    unit = file if file.endswith(".cpp") else os.path.normpath(f"csrc/cpu/{of(file, UNITS)}")
    made, command = commands[unit]
    kept = {path: path.read_bytes() for path in (Path(made), extension)}
    try:
        if not runs(command) or Path(made).read_bytes() == kept[Path(made)]:
            return "no mutant"
        extension.unlink()
        first = [link[0], made, *(str(extension) if part == link[-1] else part for part in link[1:] if part != made)]
        return tested(file) if runs(first) else "no mutant"         # first: so that its templates win
    finally:
        for path, content in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def of(file, table, default=None):
    return next((value for part, value in table.items() if part in file), default)


def runs(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


# ---- testing them ----

def tested(file):
    """The test that caught the mutant of this file, or "survived"."""
    ops = of(file, OPS, Path(file).stem).split()
    named = NAMED[:1] if file.endswith(".py") else NAMED
    others = dict.fromkeys(test for part, tests in EXTRA.items() if part in file for test in tests)
    return (in_a_process(call_tests, file, ops)
            or in_a_process(run_pytest, *named, "-k", f"({' or '.join(ops)} or share) and {SLOW}")
            or others and in_a_process(run_pytest, *others, "-k", SLOW) or "survived")


def in_a_process(function, *arguments):
    """The first test that fails, or what else ended it; "" if nothing did. Forked: what all tests import is there."""
    with tempfile.NamedTemporaryFile("r") as log:
        child = multiprocessing.get_context("fork").Process(target=apart, args=(log.name, function, *arguments))
        child.start()
        child.join(20 * SECONDS)
        if child.is_alive():
            child.kill()
        child.join()
        failed = re.findall(r"^(?:FAILED|ERROR|running) (?:tests/)?(\S+)", log.read(), re.M)
    if child.exitcode in (0, 5):                            # 5: no such tests
        return ""
    how = {1: "", -signal.SIGKILL: " never ends", -signal.SIGXCPU: " never ends"}
    return (failed[-1] if failed else "the import") + how.get(child.exitcode, f" ends with {child.exitcode}")


def apart(log, function, *arguments):
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.path[:] = [str(Path("tests").absolute()), str(Path.cwd()),
                   *(place for place in sys.path if place not in (str(ROOT), str(ROOT / "tests")))]
    sys.dont_write_bytecode = True
    os._exit(function(*arguments))


def call_tests(file, ops):
    """The numeric tests of these ops and of the variants that the file names, without pytest, which starts slowly."""
    for module in NUMERIC:
        for name, function in vars(import_module(f"ops.{module}")).items():
            marks = [mark.args[:2] for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
            for values in product(*(choices for _, choices in marks)):
                case = {}
                for (names, _), value in zip(marks, values):
                    several = value.values if hasattr(value, "marks") else value if ", " in names else [value]
                    case |= zip(names.split(", "), several)
                if right_case(case, file, ops) and case.keys() == signature(function).parameters.keys():
                    print(f"running ops/{module}.py::{name}[{'-'.join(map(str, case.values()))}]", flush=True)
                    function(**case)
    return 0


def right_case(case, file, ops):
    backend, _, variant = case.get("backend", "numpy").partition("/")
    here = backend == "cpu" if file.startswith("csrc") else not variant
    return case.get("op") in ops and here and (variant in file or "ladder" in file)


def run_pytest(*arguments):
    import pytest
    return pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "--tb=no", *arguments])


def explained_ones():
    """The mutants that tests/mutants.md explains, as text."""
    return set(re.findall(r"^- (\S+: `.*?` → `.*?`): ", (ROOT / "tests/mutants.md").read_text(), re.M))


def all_tried(options, folder):
    """[{mutant, line, found}] of as many as are asked for."""
    tree, results = Path(folder) / "tree", []
    tree.mkdir()
    build = prepare(tree)
    mutants = planted() if options.planted else drawn(options.only, options.seed)
    chosen = list(islice(mutants, 2 * options.count))
    pool = ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork"), move_to_a_copy, (tree,))
    for mutant, found in zip(chosen, pool.map(partial(verdict, build=build, explained=explained_ones()), chosen)):
        if found != "no mutant":
            results.append({"mutant": str(mutant), "line": mutant.line, "found": found})
        if len(results) == options.count:
            break
    pool.shutdown(cancel_futures=True)
    os.chdir(ROOT)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="ops, csrc, or a part of what is printed of a mutant")
    parser.add_argument("--planted", action="store_true", help="the errors that once survived, not random ones")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options, started = parser.parse_args(), time.time()
    import hypothesis  # noqa: F401  # here and the next two: inherited by the processes that test
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        results = all_tried(options, folder)
    counted = {kind: sum(r["found"] == kind for r in results) for kind in ("survived", "explained")}
    caught = len(results) - sum(counted.values())
    summary = {"mutants": len(results), "caught": caught, **counted, "seconds": round(time.time() - started)}
    print(json.dumps(summary | {"results": results}, indent=1) if options.json else summary)
    return 0 if caught >= 0.95 * (len(results) - counted["explained"]) else 1


if __name__ == "__main__":
    sys.exit(main())
