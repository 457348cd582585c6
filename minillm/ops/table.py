"""The op table, collected from the files of this package: an op is listed because its file ends with a SPEC.

`OPS` holds each op once, the losses and the optimizer's last; `KERNELS` each compiled kernel once; `REFERENCE` the
functions of the reference, by name. Choosing among them is `select`'s part.
"""
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from .spec import Dims, Kernel, Spec, functions

__all__ = ["KERNELS", "OPS", "REFERENCE", "Dims", "Kernel", "Spec", "functions"]


def modules_with_a_spec():
    names = [found.name for found in walk_packages([str(Path(__file__).parent)], f"{__package__}.")]
    modules = map(import_module, sorted(names, key=lambda name: (name.count("."), name)))       # folders after files
    return [module for module in modules if hasattr(module, "SPEC")]


FILES = {module.SPEC.name: module for module in modules_with_a_spec()}
OPS = {name: module.SPEC for name, module in FILES.items()}
KERNELS = tuple(Kernel(op, backend, variant, dtypes) for op, spec in OPS.items()
                for choice, dtypes in spec.kernels.items() for backend, _, variant in [choice.partition("/")])
REFERENCE = {name: getattr(FILES[op], name) for op, spec in OPS.items() for name in functions(spec)}
