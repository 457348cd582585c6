"""Who may import whom (design), read from the source with `ast`; and what `import minillm` drags in."""
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

# module -> what it may import of minillm ("ops" allows ops.checks and so on); a "?" marks: inside functions only
ALLOWED = {
    "params": {"memory"}, "memory": {"registry?"}, "config": set(), "gradcheck": set(), "files": set(),
    "ops": {"ops"},
    "registry": {"ops", "_cpp"},
    "model": {"config", "params", "ops", "registry?", "checkpoint?", "quantize?"},
    "optim": {"params", "ops"},
    "sampling": set(),
    "generate": {"model", "sampling"},
    "speculative": {"generate", "sampling"},
    "safetensors": {"files"},
    "checkpoint": {"params", "config", "files", "safetensors"},
}


def module_of(path):
    """minillm/ops/gelu.py -> ops.gelu; a package's __init__.py is the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """(absolute name, at top level) for each import of a file; relative ones become minillm.something."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {id(node) for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)}
    package = ("minillm", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) + 1 - node.level]) if node.level else ""
            stem = ".".join(filter(None, (base, node.module)))
            of_package = not node.module or stem == "minillm"            # from . import ops, from minillm import ops
            names = [f"{stem}.{alias.name}" for alias in node.names] if of_package else [stem]
        else:
            continue
        for name in names:
            yield name, id(node) not in lazy


def ours(path):
    """Modules of minillm that a file imports, by their first part; "?" where only inside functions."""
    found = [(name.split(".")[1], top) for name, top in imports(path) if name.startswith("minillm.")]
    return {name if top else f"{name}?" for name, top in found}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_packages(path):
    """At the top of a file: the standard library, numpy, regex. Anywhere: no framework, no tests, no benchmarks."""
    for name, top in imports(path):
        root = name.split(".")[0]
        assert root not in NEVER, f"imports {name}"
        if top:
            assert root in {"minillm"} | AT_RUN_TIME | sys.stdlib_module_names, f"imports {name} at the top"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p).split(".")[0] in ALLOWED], ids=module_of)
def test_who_may_import_whom(path):
    allowed = ALLOWED[module_of(path).split(".")[0]]
    for name in ours(path):
        assert name in allowed or name.rstrip("?") in allowed, name


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p).startswith("ops")], ids=module_of)
def test_ops_need_numpy_and_little_else(path):
    outside = {name.split(".")[0] for name, _ in imports(path)} - {"minillm"}
    assert outside <= {"numpy"} | sys.stdlib_module_names


def test_the_model_takes_few_helpers_from_ops():
    """The ops themselves arrive as an argument."""
    taken = {name for name, _ in imports(PACKAGE / "model.py") if name.startswith("minillm.ops")}
    assert taken <= {"minillm.ops.checks", "minillm.ops.attention", "minillm.ops.documents"}


def test_this_test_sees_imports():
    """Relative, absolute, lazy: all are found."""
    seen = dict(imports(PACKAGE / "model.py"))
    assert seen["numpy"] and seen["minillm.params"] and not seen["minillm.registry"]


def test_importing_minillm_is_light():
    """No plotting, no frameworks; beyond NumPy's own time, well under a second on any machine that is not asleep."""
    program = ("import sys, time, numpy, regex; start = time.perf_counter(); import minillm; "
               "print(time.perf_counter() - start); print(*sys.modules)")
    seconds, modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                                      cwd=PACKAGE.parent, timeout=60).stdout.splitlines()
    assert not {"matplotlib", "torch", "transformers", "tkinter", "cffi"} & set(modules.split())
    assert float(seconds) < 3
