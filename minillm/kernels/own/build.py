"""Compile a C or C++ kernel, with its functions behind a calling convention of one kind.

The source is included as it is by a few lines of ours, which add for every bound function

    void minillm_call_0(void** a) { layernorm_forward((float*)a[0], ..., *(int*)a[5]); }

so that static functions, C++ and any order of arguments are called alike: an address for each argument. A main() is
renamed. A .so is linked to instead; what it takes, only --bind can say.
"""
import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from .binding import Function, bind, op_of
from .prototype import Mapping, Prototype, read_mappings, read_prototypes

C_FLAGS = "-O3 -march=native -fopenmp"          # of somebody's own kernel on his own machine; --cflags for others
CPP = (".cpp", ".cc", ".cxx", ".C")
SOURCES = (".c", *CPP)


def functions_of(path: Path, op: str | None, bindings: Sequence[str] = ()) -> list[Function]:
    """The functions of a source (or .so) that are bound to `op`, or with None to any op. Raises ValueError for none."""
    text = path.read_text(errors="replace") if path.suffix in SOURCES else ""
    said = "\n".join(f"// minillm: {line.removeprefix('minillm:')}" for line in bindings)
    mappings = read_mappings(text) | read_mappings(said)
    prototypes = read_prototypes(text) | read_prototypes(";\n".join([*bindings, ""]))
    chosen = [(prototypes[name], mapping) for name, mapping in mappings.items() if name in prototypes]
    if missing := [name for name in mappings if name not in prototypes]:
        raise ValueError(f"{path.name} has no function {missing[0]!r} that takes numbers and pointers to numbers: it has "
                         f"{', '.join(prototypes) or 'none'}")
    chosen += [(prototype, None) for name, prototype in prototypes.items()
               if name not in mappings and op_of(prototype, None)]
    found = [bind(prototype, wanted, mapping) for prototype, mapping in chosen
             if (wanted := mapping.op if mapping and mapping.op else op_of(prototype, mapping) or op) and op in (None, wanted)]
    if not found and op and len(prototypes) == 1:
        found = [bind(next(iter(prototypes.values())), op)]
    if not found:
        raise ValueError(f"{path.name} has no function for {'op ' + op if op else 'any op'}: its functions are "
                         f"{', '.join(prototypes) or 'none'}; name one by a comment: // minillm: FUNCTION(out, x, ...)")
    return found


def compile_kernel(path: Path, functions: Sequence[Function], cc: str | None = None, cflags: str = C_FLAGS,
                   defines: Sequence[str] = (), includes: Sequence[str] = ()) -> Path:
    """The shared library of the functions, compiled once for each content: its path. Raises ValueError with the
    compiler's words where it fails."""
    cpp = path.suffix in CPP
    compiler = cc or ("g++" if cpp else "gcc" if which("gcc") else "cc")
    source = trampolines(path, functions, cpp)
    command = [*shlex.split(compiler), *shlex.split(cflags), "-fPIC", "-shared", "-w", "-Dmain=minillm_main",
               *(f"-D{item}" for item in defines), *(f"-I{item}" for item in (path.parent, *includes))]
    stamp = hashlib.sha256(repr((source, command, path.read_bytes())).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minillm" / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{path.stem}-{stamp}.so"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        shim = Path(temporary) / ("shim.cpp" if cpp else "shim.c")
        shim.write_text(source)
        linked = [f"-Wl,-rpath,{path.resolve().parent}", str(path.resolve())] if path.suffix == ".so" else []
        made = Path(temporary) / library.name
        done = subprocess.run([*command, str(shim), "-o", str(made), *linked, "-lm"], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{path.name} does not compile: {shlex.join(command)} said\n{done.stderr.strip()}")
        os.replace(made, library)
    return library


def trampolines(path: Path, functions: Sequence[Function], cpp: bool) -> str:
    """The source of the library: theirs, included, and a call of one kind for each function."""
    head = "#include <stdint.h>\n#include <stddef.h>\n#include <sys/types.h>\n"
    head += f'#include "{path.resolve()}"\n' if path.suffix != ".so" else "".join(
        f"{f.returns and 'double' or 'void'} {f.name}({', '.join(declared(slot.theirs) for slot in f.slots)});\n"
        for f in functions)
    calls = "\n".join(trampoline(i, function) for i, function in enumerate(functions))
    return f'{head}\n{"extern " + chr(34) + "C" + chr(34) + " {" if cpp else ""}\n{calls}\n{"}" if cpp else ""}\n'


def declared(parameter) -> str:
    return f"{parameter.type}{'*' * parameter.pointer} {parameter.name}"


def trampoline(number: int, function: Function) -> str:
    """void minillm_call_N(void** a), where a[i] is the address of argument i, and the last one's that of the result."""
    arguments = [f"({slot.theirs.type}*)a[{i}]" if slot.theirs.pointer else f"*({slot.theirs.type}*)a[{i}]"
                 for i, slot in enumerate(function.slots)]
    call = f"{function.name}({', '.join(arguments)})"
    result = f"*(double*)a[{len(arguments)}] = {call}" if function.returns else call
    return f"void minillm_call_{number}(void** a) {{ {result}; }}"


__all__ = ["C_FLAGS", "SOURCES", "Mapping", "Prototype", "compile_kernel", "functions_of"]
