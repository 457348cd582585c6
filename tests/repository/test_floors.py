"""Who may import whom: a module imports only rooms on lower floors, and its own room; lazy imports count;
no circles."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minillm

PACKAGE = Path(minillm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
AT_RUN_TIME = {"numpy", "regex"}                # the only packages that a fresh install brings
NEVER = {"torch", "transformers", "tensorflow", "jax", "tests", "benchmarks", "pytest", "hypothesis"}
PEERS = {("workbench.kernel.torch_pair", "torch"),           # whom a kernel is timed beside, in a process of its own
         *[("workbench.properties.code_paths", peer) for peer in ("torch", "transformers")]}    # whose logits ours are
FLOOR = {
    "ops": 0, "storage": 0, "text": 0, "_cpp": 0, "gradcheck": 0, "config": 0, "progress": 0, "launch": 0, "version": 0,
    "micro": 0, "worker": 0,
    "kernels": 1, "tokenizer": 1,
    "models": 2,
    "train": 3, "generation": 3, "data": 3,
    "posttrain": 4, "evaluate": 4, "serve": 4,
    "workbench": 5,
    "recipes": 6, "study": 6,
    "commands": 7,
    "": 8, "__main__": 8, "optim": 8, "generate": 8,                # what users import, by its public names
}


def module_of(path):
    """minillm/ops/gelu.py -> ops.gelu; a package's __init__.py is the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module):
    return module.split(".")[0]


def imports(path):
    """(absolute name, at top level) for each import of a file, lazy ones too;
    `from .room import name` gives room.name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {id(node) for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)}
    package = ("minillm", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in lazy) for name in names)


def ours(path):
    """Modules of minillm that a file imports, the file itself left out."""
    found = set()
    for name, _ in imports(path):
        if name.split(".")[0] == "minillm":
            module = name.partition(".")[2]
            while module and module not in MODULES:                  # from .ops.gelu import gelu_forward
                module = module.rpartition(".")[0]
            found.add(module)
    return found - {module_of(path)}


@pytest.mark.parametrize("module", MODULES)
def test_only_lower_floors_and_the_own_room(module):
    for other in ours(MODULES[module]):
        lower = FLOOR[room_of(other)] < FLOOR[room_of(module)]
        assert lower or room_of(other) == room_of(module) or FLOOR[room_of(module)] == 8, f"imports {other}"


def test_no_circles():
    """Not even lazy ones, nor among the files of a room. A package's __init__ stands for its parts."""
    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        if module not in seen:
            for other in ours(MODULES[module]):
                visit(other, [*path, module])
            seen.add(module)
    seen = set()
    for module in MODULES:
        visit(module, [])


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_packages(path):
    """At the top of a file: the standard library, numpy, regex. Anywhere: no framework, no tests, no benchmarks."""
    for name, top in imports(path):
        root = name.split(".")[0]
        assert root not in NEVER or (module_of(path), root) in PEERS and not top, f"imports {name}"
        if top:
            assert root in {"minillm"} | AT_RUN_TIME | sys.stdlib_module_names, f"imports {name} at the top"


@pytest.mark.parametrize("path", [p for m, p in MODULES.items() if room_of(m) in ("ops", "gradcheck", "micro")],
                         ids=module_of)
def test_ops_gradcheck_and_micro_need_numpy_alone(path):
    outside = {name.split(".")[0] for name, _ in imports(path)} - {"minillm"}
    assert outside <= {"numpy"} | sys.stdlib_module_names


def test_micro_stands_alone():
    """It is read and copied by itself: it imports no module of the package."""
    assert not ours(MODULES["micro"])


def test_this_test_sees_imports(tmp_path):
    """Relative, absolute, lazy: all are found."""
    seen = dict(imports(PACKAGE / "commands" / "quickstart.py"))
    assert seen["argparse.Namespace"] and not seen["minillm.recipes.story.story"]
    assert "recipes.story" in ours(PACKAGE / "commands" / "quickstart.py")


def test_importing_minillm_is_light():
    """No plotting, no frameworks; beyond NumPy's own time, well under a second on any machine that is not asleep."""
    program = ("import sys, time, numpy, regex; start = time.perf_counter(); import minillm; "
               "print(time.perf_counter() - start); print(*sys.modules)")
    seconds, modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                                      cwd=PACKAGE.parent, timeout=60).stdout.splitlines()
    assert not {"matplotlib", "torch", "transformers", "tkinter", "cffi"} & set(modules.split())
    assert float(seconds) < 3
