"""What users import has type hints, for their editors and type checkers; mypy holds them against the code
(.ci/lint)."""
import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

import minillm

ROOT = Path(minillm.__file__).resolve().parent.parent
MODULES = ["minillm", "minillm.optim", "minillm.generate", "minillm.gradcheck", "minillm.kernels.select",
           "minillm.models.load"]


def functions_of(value):
    """The function itself, or the public methods that a class writes out (a dataclass generates some), if ours."""
    members = [value]
    if inspect.isclass(value):
        members = [member for key, member in vars(value).items() if key == "__init__" or not key.startswith("_")]
    plain = [getattr(member, "__func__", getattr(member, "fget", member)) for member in members]
    return [member for member in plain if inspect.isfunction(member) and "minillm" in member.__code__.co_filename
            and not member.__module__.startswith("minillm.ops")]                 # those have their types in the stub


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_type_hints(module):
    module, checked = importlib.import_module(module), 0
    for value in [getattr(module, name) for name in getattr(module, "__all__", dir(module))
                  if not name.startswith("_")]:
        for function in functions_of(value):
            missing = inspect.signature(function).parameters.keys() - function.__annotations__.keys() - {"self", "cls"}
            returns = "return" in function.__annotations__ or function.__name__ == "__init__"
            assert returns and not missing, (function.__qualname__, missing)
            checked += 1
    assert checked


def test_type_checkers_may_read_them():
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in packaged["minillm"] and (ROOT / "minillm" / "py.typed").exists()
    for stub in (ROOT / "minillm").rglob("*.pyi"):
        assert "*.pyi" in packaged[".".join(stub.parent.relative_to(ROOT).parts)]
