"""The op table, collected from the files of this package: an op is listed because its file ends with a SPEC.

`OPS` holds each op once, the losses and the optimizer's last; `REFERENCE` the functions of the reference, by name.
Choosing among its kernels is `select`'s part.
"""
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from .spec import Dims, Spec, functions

__all__ = ["OPS", "REFERENCE", "Dims", "Spec", "functions"]


def modules_with_a_spec():
    names = [found.name for found in walk_packages([str(Path(__file__).parent)], f"{__package__}.")]
    modules = map(import_module, sorted(names, key=lambda name: (name.count("."), name)))       # folders after files
    return [module for module in modules if hasattr(module, "SPEC")]


FILES = {module.SPEC.name: module for module in modules_with_a_spec()}
OPS = {name: module.SPEC for name, module in FILES.items()}
REFERENCE = {name: getattr(FILES[op], name) for op, spec in OPS.items() for name in functions(spec)}
